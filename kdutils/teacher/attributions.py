"""The attributions: how much each token of a source matters for the target text of a model.

A new attribution is a function and an entry of ATTRIBUTIONS, at the end of this file. Libraries are imported inside the
functions, so that experiment files can be checked without torch.

In shapes, S is the number of source tokens, T of target tokens (end token included), D the width of an embedding.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LIME_WIDTH = 25  # of the kernel for distances from 0 to 100, the default for texts of the authors of LIME
CAPTUM = ("captum.attr", "sklearn.linear_model", "sklearn.svm")  # captum imports the last two for lime


@dataclass(frozen=True)
class Attribution:
    """A way to score the tokens of a source.

    - `scores`: a function of a model, a batch (word_scores.padded_batch) and the arguments that `takes` names. It
      returns the score of each source token, (rows, S), or a pair of these and the completeness error of each row.
      None where words are drawn and no model is read.
    - `takes`: names of settings (word_scores.SETTINGS), and of `special` and `parts` of word_scores.token_scores.
    - `libraries`: modules that it imports. They are imported before its time is taken.
    - `causal`: whether the model may be a causal one.
    - `sampled`: whether its scores depend on the seed.
    """

    scores: Callable | None
    takes: tuple[str, ...] = ()
    libraries: tuple[str, ...] = ()
    causal: bool = True
    sampled: bool = False


def is_causal(model: "PreTrainedModel | None") -> bool:
    """Return whether a model is a causal one and not an encoder-decoder."""
    return not getattr(getattr(model, "config", None), "is_encoder_decoder", True)


def target_log_p(model: "PreTrainedModel", embeddings: "torch.Tensor", mask: "torch.Tensor",
                 decoder: "torch.Tensor", target: "torch.Tensor", counted: "torch.Tensor") -> "torch.Tensor":
    """Return log p of each target token, (rows, T), given source `embeddings`, (rows, S, D); 0 where not counted."""
    if is_causal(model):
        logits = _read_on(model, embeddings, mask, target)
    else:
        logits = model(inputs_embeds=embeddings, attention_mask=mask, decoder_input_ids=decoder, use_cache=False).logits
    return logits.log_softmax(-1).gather(-1, target.unsqueeze(-1)).squeeze(-1) * counted


def _read_on(model, embeddings, mask, target):
    """Return the logits of each target token, (rows, T, V), of a causal model that reads it behind the source.

    The padding of a shorter source stands between both. It is masked, and positions do not count it.
    """
    import torch

    behind = model.get_input_embeddings()(target[:, :-1])
    sees = torch.cat([mask, torch.ones_like(target[:, :-1])], 1)
    logits = model(inputs_embeds=torch.cat([embeddings, behind], 1), attention_mask=sees,
                   position_ids=(sees.cumsum(1) - 1).clamp(min=0), use_cache=False).logits
    last = mask.sum(1, keepdim=True) - 1  # the last token of the source predicts the first one of the target
    places = torch.cat([last, torch.arange(mask.shape[1], sees.shape[1], device=mask.device).expand(len(mask), -1)], 1)
    return logits.gather(1, places[..., None].expand(-1, -1, logits.shape[-1]))


def mean_log_p(model: "PreTrainedModel", embeddings: "torch.Tensor", mask: "torch.Tensor", decoder: "torch.Tensor",
               target: "torch.Tensor", counted: "torch.Tensor") -> "torch.Tensor":
    """Return the mean log p of the counted target tokens of each row, (rows,), given source `embeddings`, (rows, S, D).
    """
    return target_log_p(model, embeddings, mask, decoder, target, counted).sum(-1) / counted.sum(-1)


def padding(model: "PreTrainedModel") -> int:
    """Return the id of the token that takes the place of a word: padding, without one the end token, else 0."""
    if model.config.pad_token_id is not None:
        return model.config.pad_token_id
    end = model.config.eos_token_id
    return (end[0] if isinstance(end, list) else end) or 0


def gradient_scores(score: Callable, model: "PreTrainedModel", batch: "dict[str, torch.Tensor]") -> "torch.Tensor":
    """Return the mean over a row's target tokens of each source token's score, (rows, S).

    ``score(embeddings, gradients)``, of two (rows, S, D), is the score for one target token, (rows, S).

    The score of source token s for target token t, with e the embedding of s and g = ∂ log p(t) / ∂ e, is ‖g‖₂ for
    `saliency` (Simonyan, Vedaldi and Zisserman 2014) and |e · g| for `input_x_gradient` (Shrikumar et al. 2016).
    Simonyan et al. take the largest |g| of the three colours of a pixel, and the score of a class before the softmax.
    Here it is the norm, because no axis of an embedding has a meaning of its own, and log p, because a score before the
    softmax may rise for all tokens alike.

    The score is computed per target token before the mean, so that opposite signs of two target tokens do not cancel.
    One backward pass per target token serves all rows at once. T5 normalises each token before its first layer, which
    removes most of the component of g along e: there, e · g says little.
    """
    import torch

    embeddings = model.get_input_embeddings()(batch["source"]).detach().requires_grad_()
    log_p = target_log_p(model, embeddings, *(batch[name] for name in ("mask", "decoder", "target", "counted")))
    total = torch.zeros_like(embeddings[..., 0])
    for position in batch["counted"].any(dim=0).nonzero()[:, 0].tolist():
        gradient, = torch.autograd.grad(log_p[:, position].sum(), embeddings, retain_graph=True)
        total += score(embeddings, gradient)
    return total.detach() / batch["counted"].sum(-1, keepdim=True)


def integrated_gradients(model: "PreTrainedModel", batch: "dict[str, torch.Tensor]", special: set[int], steps: int,
                         token_budget: int) -> "tuple[torch.Tensor, list[float]]":
    """Return (scores (rows, S), completeness errors) by captum's IntegratedGradients (Sundararajan et al. 2017).

    The attribution of dimension i of the embeddings x is (x_i - b_i) · ∫ ∂f/∂x_i(b + a (x - b)) da over a from 0 to 1
    (equation 1), with the baseline b; the integral is a sum over `steps` points of Gauss and Legendre. In the paper f
    is the score of a class, here the mean of log p over the target tokens. The score of a token is the absolute sum
    over the dimensions of its embedding, because words are ranked by the size of their influence. The baseline has the
    embedding of the padding token in place of every token that is not `special`; it is not zero, because T5 normalises
    each token. The error is the sum of all attributions minus f(source) − f(baseline). It goes to 0 with more `steps`.
    """
    import torch
    from captum.attr import IntegratedGradients

    source, embed = batch["source"], model.get_input_embeddings()
    keeps = torch.isin(source, torch.tensor(sorted(special), device=source.device))
    baseline = embed(torch.where(keeps, source, padding(model)))
    tokens = source.shape[1] + batch["target"].shape[1]
    parts, errors = IntegratedGradients(partial(mean_log_p, model)).attribute(
        embed(source), baseline, n_steps=steps, internal_batch_size=max(len(source), token_budget // tokens),
        additional_forward_args=tuple(batch[name] for name in ("mask", "decoder", "target", "counted")),
        return_convergence_delta=True)
    return parts.sum(-1).abs().detach(), errors.tolist()


def perturbation_scores(method: Callable, model: "PreTrainedModel", batch: "dict[str, torch.Tensor]",
                        parts: list[list[int]], evaluations: int, seed: int, token_budget: int) -> "torch.Tensor":
    """Return the influence of each source token's word on the mean log p of the target tokens, (rows, S), by captum.

    ``method(value, count, evaluations)`` returns a captum attribution of the function `value` to `count` words, and the
    further arguments of its `attribute`. Words are left out: their tokens get the embedding of the padding token, as in
    the baseline of integrated gradients. With v(A) the mean log p where the words A are there, and N all words, the
    score of word i is the absolute value of

    - `occlusion`: v(N) − v(N without i) (Zeiler and Fergus 2014; Li, Monroe and Jurafsky 2016);
    - `shapley_sampling`: the mean over random orders of the words of v(those before i, and i) − v(those before i), an
      estimate of the Shapley value (Castro et al. 2009; Strumbelj and Kononenko 2010);
    - `lime`: the weight of i in a regression of v(A) on the words in A, over random A (Ribeiro et al. 2016): `_lime`.

    The second and the third evaluate the model about `evaluations` times per row. They are drawn from `seed`, alike for
    each row. `parts`: see word_scores.token_scores.
    """
    import torch

    scores, embed = torch.zeros(batch["source"].shape), model.get_input_embeddings()
    for row, words in enumerate(parts):
        source = batch["source"][row:row + 1, :len(words)]
        words = torch.tensor([words], device=source.device)
        count = int(words.max()) + 1  # the tokens that stay are one more part, without an influence
        if not count:
            continue
        baseline = embed(torch.where(words < 0, source, padding(model)))
        given = (batch["mask"][row:row + 1, :len(words[0])], *(batch[name][row:row + 1]
                                                               for name in ("decoder", "target", "counted")))
        at_once = max(1, token_budget // (source.shape[1] + batch["target"].shape[1]))
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(seed)
            captum, more = method(partial(mean_log_p, model), count, evaluations)
            found = captum.attribute(
                embed(source), baselines=baseline, additional_forward_args=given, perturbations_per_eval=at_once,
                feature_mask=torch.where(words < 0, count, words).unsqueeze(-1), **more)
        scores[row, :len(words[0])] = found[0, :, 0].abs().cpu() * (words[0] >= 0).cpu()
    return scores


def _occlusion(value, count, evaluations):
    from captum.attr import FeatureAblation

    return FeatureAblation(value), {}


def _shapley(value, count, evaluations):
    from captum.attr import ShapleyValueSampling

    return ShapleyValueSampling(value), {"n_samples": max(1, evaluations // (count + 1))}


def _lime(value, count, evaluations):
    """Return captum's Lime for `count` words and `value` with the samples and weights of the authors' code for texts.

    The w that minimise Σ_A π(A) (v(A) − w_0 − Σ_{i in A} w_i)² + Σ_i w_i² (Ribeiro et al. 2016, equations 1 and 2, with
    the ridge penalty of the code), with π(A) = exp(−D(A)² / 2σ²) and σ = LIME_WIDTH. D(A) = 100 (1 − √(|A| / |N|)) is
    100 times the cosine distance of the binary vectors of A and of N, all words. The first A is N. From each other one,
    1 to |N| words are removed, each number with the same probability.

    The code (marcotcr/lime, lime_text.py and lime_base.py) explains a probability, removes a repeated word everywhere
    and keeps at most 10 words. Here it is a mean log p, each place of a word is one, and all are kept.
    """
    import torch
    from captum._utils.models.linear_model import SkLearnRidge
    from captum.attr import Lime

    def draws(inputs, num_interp_features, **_):  # of which the last may be the tokens that stay
        yield torch.ones(1, num_interp_features, device=inputs.device)
        while True:
            there = torch.ones(1, num_interp_features, device=inputs.device)
            there[0, torch.randperm(count)[:torch.randint(1, count + 1, ())]] = 0
            yield there

    def weight(inputs, perturbed, there, **_):
        return torch.exp(-(100 * (1 - there[0, :count].mean().sqrt())) ** 2 / (2 * LIME_WIDTH ** 2))

    return Lime(value, SkLearnRidge(alpha=1.0), weight, draws), {"n_samples": evaluations}


def attention_scores(model: "PreTrainedModel", batch: "dict[str, torch.Tensor]") -> "torch.Tensor":
    """Return attention rollout seen from the target, (rows, S).

    Encoder: see `rollout`. The paper has encoders only. Here its rows are weighted by the cross-attention of the target
    tokens, averaged over heads, decoder layers and target tokens. The scores of a row sum to 1. Attention shows where a
    model looks, not what decides its answer.
    """
    import torch

    usual = model.config._attn_implementation
    model.set_attn_implementation("eager")  # the others do not return their weights
    with torch.no_grad():
        out = model(input_ids=batch["source"], attention_mask=batch["mask"], decoder_input_ids=batch["decoder"],
                    output_attentions=True, use_cache=False)
    model.set_attn_implementation(usual)
    cross = torch.stack(out.cross_attentions).mean((0, 2)) * batch["counted"].unsqueeze(-1)
    weights = cross.sum(1, keepdim=True) / batch["counted"].sum(-1)[:, None, None]
    return (weights @ rollout(out.encoder_attentions)).squeeze(1)


def rollout(attentions: "Sequence[torch.Tensor]") -> "torch.Tensor":
    """Return attention rollout, (rows, S, S): the product of (W + I) / 2 over layers, last layer first.

    W, (rows, heads, S, S) in `attentions`, is averaged over heads; I stands for the residual connection (Abnar and
    Zuidema 2020, equation 1, where W + I is normalised to rows that sum to 1, which is the same).
    """
    import torch

    joined = torch.eye(attentions[0].shape[-1]).to(attentions[0])
    for layer in attentions:
        joined = (layer.mean(1) @ joined + joined) / 2
    return joined


PERTURBED = {"takes": ("parts", "evaluations", "seed", "token_budget"), "libraries": CAPTUM}
ATTRIBUTIONS = {
    "saliency": Attribution(partial(gradient_scores, lambda embedding, gradient: gradient.norm(dim=-1))),
    "input_x_gradient": Attribution(partial(gradient_scores,
                                            lambda embedding, gradient: (embedding * gradient).sum(-1).abs())),
    "integrated_gradients": Attribution(integrated_gradients, ("special", "steps", "token_budget"), CAPTUM),
    "attention_rollout": Attribution(attention_scores, causal=False),  # which has no cross-attention
    "occlusion": Attribution(partial(perturbation_scores, _occlusion), **PERTURBED),
    "shapley_sampling": Attribution(partial(perturbation_scores, _shapley), **PERTURBED, sampled=True),
    "lime": Attribution(partial(perturbation_scores, _lime), **PERTURBED, sampled=True),
    "random": Attribution(None, sampled=True),
}
