"""Matrix products in float32 on a CPU.

PyTorch gives them to MKL, which takes AVX2 on processors that are not Intel's. PyTorch's other library, oneDNN, takes
AVX-512 wherever it is there: twice as fast on an AMD EPYC. In bfloat16 PyTorch itself uses oneDNN.
"""

import platform

import torch
from torch.nn import functional

LARGE = 2_000_000  # multiplications from which oneDNN pays: a call of it takes ten microseconds more
HAS_ONEDNN = (platform.machine() in ("x86_64", "AMD64") and torch.backends.mkldnn.is_available()
              and hasattr(torch.ops.mkldnn, "_linear_pointwise"))


def linear(inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Return ``inputs @ weight.t() + bias`` as functional.linear does, (…, out); not differentiable.

    Shapes: `inputs` (…, in), `weight` (out, in), `bias` (out,).
    """
    if uses_onednn(inputs, weight):
        return torch.ops.mkldnn._linear_pointwise(inputs, weight, bias, "none", [], "")
    return functional.linear(inputs, weight, bias)


def uses_onednn(inputs: torch.Tensor, weight: torch.Tensor) -> bool:
    """Return whether linear() takes oneDNN for these matrices: large ones in float32 on a CPU.

    Not inside torch.compile, which cannot build code for this operator with a weight that changes.
    """
    return (HAS_ONEDNN and inputs.device.type == "cpu" and inputs.dtype == weight.dtype == torch.float32
            and inputs.numel() * len(weight) >= LARGE and not torch.is_autocast_enabled("cpu")
            and not torch.compiler.is_compiling())


class Linear(torch.autograd.Function):
    """linear() with its gradients; forward takes (inputs, weight, bias)."""

    @staticmethod
    def forward(ctx: object, inputs: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        """Return linear(inputs, weight, bias)."""
        ctx.save_for_backward(inputs, weight)
        return linear(inputs, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, slope: torch.Tensor) -> tuple:
        """Return the gradients of forward's inputs."""
        inputs, weight = ctx.saved_tensors
        flat = slope.flatten(0, -2)
        return (linear(slope, weight.t()) if ctx.needs_input_grad[0] else None,
                linear(flat.t(), inputs.flatten(0, -2).t()) if ctx.needs_input_grad[1] else None,
                flat.sum(0) if ctx.needs_input_grad[2] else None)
