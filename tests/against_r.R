# Recompute statistics in R for tests/test_against_r.py: Rscript against_r.R cases.json results.json
# cases.json: {name: {"function": one of `functions`, "arguments": {...}}}. results.json: {name: {value: numbers}}.

packages <- c("jsonlite", "lme4", "lmerTest", "pbkrtest", "psych", "numDeriv")
missing <- packages[!sapply(packages, requireNamespace, quietly = TRUE)]
if (length(missing)) {
  cat("missing R packages:", missing, "\n")
  quit(status = 3)
}
suppressMessages(library(lmerTest))

as_groups <- function(table, value, group) {
  names <- do.call(paste, c(lapply(group, function(one) table[[one]]), sep = " × "))
  data.frame(y = table[[value]], g = factor(names, levels = unique(names)))
}
pairs_of <- function(count) combn(count, 2)
ranks_and_sizes <- function(data) {
  list(mean = tapply(rank(data$y), data$g, mean), size = tapply(data$y, data$g, length))
}

# --- accuracy

mean_squares <- function(matrix) {  # seeds in rows, questions in columns
  long <- data.frame(y = as.vector(matrix), seed = factor(row(matrix)), question = factor(col(matrix)))
  anova(lm(y ~ seed + question, long))[c("seed", "Residuals"), "Mean Sq"]
}
mean_squares_by_hand <- function(matrix) {
  rest <- matrix - outer(rowMeans(matrix), colMeans(matrix), "+") + mean(matrix)
  c(ncol(matrix) * var(rowMeans(matrix)), sum(rest^2) / ((nrow(matrix) - 1) * (ncol(matrix) - 1)))
}
crossed <- function(first, second, squares = mean_squares) {
  sampled <- if (is.matrix(second)) list(first, second) else list(first)
  columns <- if (is.matrix(second)) colMeans(second) else second
  seen <- sapply(sampled, function(one) squares(one)[1] / length(one))
  noise <- sapply(sampled, function(one) squares(one)[2] / length(one))
  difference <- colMeans(first) - columns
  seeds <- max(sum(seen), sum(noise))
  questions <- max(var(difference) / length(difference) - sum(noise), 0)
  of_each <- sapply(sampled, nrow) - 1
  freedom_seeds <- if (sum(seen) > 0) sum(seen)^2 / sum(seen^2 / of_each) else min(of_each)
  freedom <- (seeds + questions)^2 / (seeds^2 / freedom_seeds + questions^2 / (length(difference) - 1))
  list(value = mean(difference), error = sqrt(seeds + questions), freedom = freedom)
}
p_of <- function(test) 2 * pt(-abs(test$value) / test$error, test$freedom)

crossed_estimate <- function(first, second, confidence) {
  test <- crossed(first, second)
  limits <- test$value + c(-1, 1) * qt(0.5 + confidence / 2, test$freedom) * test$error
  list(value = test$value, low = limits[1], high = limits[2], p = p_of(test))
}
crossed_equivalent <- function(first, second, margin) {
  test <- crossed(first, second)
  list(value = max(pt((test$value + margin) / test$error, test$freedom, lower.tail = FALSE),
                   pt((test$value - margin) / test$error, test$freedom)))
}
crossed_detectable <- function(first, second, level, power) {
  test <- crossed(first, second)
  far <- qt(1 - level / 2, test$freedom)
  gap <- function(ncp) suppressWarnings(pt(far, test$freedom, ncp, lower.tail = FALSE)) - power
  list(value = test$error * uniroot(gap, c(0, 37), tol = 1e-12)$root)
}

t_interval <- function(values, confidence) {
  test <- t.test(values, conf.level = confidence)
  list(value = test$estimate, low = test$conf.int[1], high = test$conf.int[2])
}
binomial <- function(hits, size, confidence, chance = NULL) {
  test <- binom.test(hits, size, if (is.null(chance)) 0.5 else chance, conf.level = confidence)
  shift <- if (is.null(chance)) 0 else chance
  found <- list(value = test$estimate - shift, low = test$conf.int[1] - shift, high = test$conf.int[2] - shift)
  if (is.null(chance)) found else c(found, p = test$p.value)
}
constant_pairs <- function(value, size) {
  limits <- binom.test(0, size)$conf.int
  p <- if (value == 0) 1 else binom.test(0, size)$p.value
  bounds <- if (value == 0) c(-limits[2], limits[2]) else sort(c(value, value * (1 - limits[2])))
  list(value = value, low = bounds[1], high = bounds[2], p = p)
}
resampled <- function(statistic, resamples, confidence) {
  set.seed(1)
  draws <- replicate(resamples, statistic())
  unname(quantile(draws, 0.5 + c(-1, 1) * confidence / 2, type = 7))
}
draw <- function(count) sample.int(count, replace = TRUE)
bootstrap_means <- function(first, second = NULL, resamples, confidence) {
  limits <- resampled(function() {
    questions <- draw(ncol(first))
    other <- if (is.null(second)) 0 else mean(second[draw(nrow(second)), questions])
    mean(first[draw(nrow(first)), questions]) - other
  }, resamples, confidence)
  list(value = mean(first) - if (is.null(second)) 0 else mean(second), low = limits[1], high = limits[2])
}
bootstrap_pairs <- function(first, second, resamples, confidence) {
  differences <- first - second
  set.seed(1)
  means <- replicate(resamples, mean(differences[draw(length(differences))]))
  limits <- quantile(means, 0.5 + c(-1, 1) * confidence / 2)
  far <- abs(means - mean(differences)) >= abs(mean(differences)) - 1e-12
  list(value = mean(differences), low = limits[1], high = limits[2], p = (1 + sum(far)) / (1 + resamples))
}
mcnemar <- function(first, second, method) {
  b <- sum(first > second)
  c <- sum(second > first)
  if (method == "corrected") {
    test <- mcnemar.test(table(factor(first, 0:1), factor(second, 0:1)))
    if (b + c == 0) test <- list(statistic = 0, p.value = 1)  # R: 0 / 0
    return(list(statistic = test$statistic, p = test$p.value, effect = (b - c) / length(first)))
  }
  p <- if (b == c) 1 else binom.test(b, b + c)$p.value - if (method == "mid-p") dbinom(b, b + c, 0.5) else 0
  list(statistic = min(b, c), p = p, effect = (b - c) / length(first))
}

normal_bootstrap <- function(values, resamples) {
  set.seed(1)
  draws <- replicate(resamples, mean(values[draw(length(values))]))
  list(mean = mean(draws), sd = sd(draws))
}

# --- agreement and calibration

krippendorff <- function(ratings, level, resamples = 0, confidence = 0.95) {
  units <- lapply(seq_len(nrow(ratings)), function(i) ratings[i, !is.na(ratings[i, ])])
  units <- units[sapply(units, length) >= 2]
  alpha <- function(units) {
    values <- sort(unique(unlist(units)))
    together <- matrix(0, length(values), length(values))
    for (unit in units) for (i in seq_along(unit)) for (j in seq_along(unit)) if (i != j) {
      cell <- cbind(match(unit[i], values), match(unit[j], values))
      together[cell] <- together[cell] + 1 / (length(unit) - 1)
    }
    totals <- rowSums(together)
    observed <- expected <- 0
    for (c in seq_along(values)) for (k in seq_along(values)) {
      distance <- switch(level, nominal = as.numeric(c != k), interval = (values[c] - values[k])^2,
                         ordinal = (sum(totals[c:k]) - (totals[c] + totals[k]) / 2)^2)
      observed <- observed + together[c, k] * distance
      expected <- expected + totals[c] * totals[k] * distance
    }
    1 - (sum(totals) - 1) * observed / expected
  }
  found <- list(value = alpha(units), n = length(units))
  if (!resamples) return(found)
  limits <- resampled(function() alpha(units[draw(length(units))]), resamples, confidence)
  c(found, low = limits[1], high = limits[2])
}
icc <- function(ratings, confidence) {
  table <- psych::ICC(ratings, lmer = FALSE, alpha = 1 - confidence)$results
  table <- table[match(c("ICC1", "ICC1k", "ICC2", "ICC2k", "ICC3", "ICC3k"), table$type), ]
  list(value = table$ICC, low = table[["lower bound"]], high = table[["upper bound"]], F = table$F, df1 = table$df1,
       df2 = table$df2, p = table$p)
}
cronbach <- function(items, confidence) {
  k <- ncol(items)
  n <- nrow(items)
  value <- suppressWarnings(suppressMessages(psych::alpha(items, check.keys = FALSE)$total$raw_alpha))
  limits <- 1 - (1 - value) * qf(0.5 + c(1, -1) * confidence / 2, n - 1, (n - 1) * (k - 1))
  list(value = value, low = limits[1], high = limits[2])
}
calibration <- function(probabilities, correct, bins, equal_mass) {
  breaks <- if (equal_mass) unique(c(0, quantile(probabilities, (1:bins) / bins, type = 1))) else (0:bins) / bins
  bin <- droplevels(cut(probabilities, breaks, include.lowest = TRUE))
  gap <- tapply(correct, bin, mean) - tapply(probabilities, bin, mean)
  size <- as.vector(table(bin))
  list(n = size, probability = tapply(probabilities, bin, mean), accuracy = tapply(correct, bin, mean), gap = gap)
}
calibration_error <- function(...) {
  bins <- calibration(...)
  list(value = sum(bins$n * abs(bins$gap)) / sum(bins$n))
}

# --- groups

outliers <- function(table, value, group) {
  data <- as_groups(table, value, group)
  limits <- sapply(split(data$y, data$g), quantile, probs = c(0.25, 0.75))
  reach <- 1.5 * (limits[2, ] - limits[1, ])
  place <- as.character(data$g)
  list(value = as.numeric(data$y < limits[1, place] - reach[place] | data$y > limits[2, place] + reach[place]))
}
levene <- function(table, value, group, center) {
  data <- as_groups(table, value, group)
  data$far <- abs(data$y - ave(data$y, data$g, FUN = get(center)))
  test <- anova(lm(far ~ g, data))
  list(statistic = test$F[1], p = test$P[1], df = test$Df)
}
normality <- function(table, value, group) {
  data <- as_groups(table, value, group)
  tests <- lapply(split(data$y, data$g), shapiro.test)
  list(W = sapply(tests, function(one) one$statistic), p = sapply(tests, function(one) one$p.value))
}
anova_two <- function(table, value, first, second) {
  data <- data.frame(y = table[[value]], a = factor(table[[first]]), b = factor(table[[second]]))
  models <- lapply(c(y ~ a, y ~ b, y ~ a + b, y ~ a * b), lm, data = data)
  left <- sapply(models, deviance)
  squares <- c(left[2] - left[3], left[1] - left[3], left[3] - left[4])
  df <- c(nlevels(data$a) - 1, nlevels(data$b) - 1, (nlevels(data$a) - 1) * (nlevels(data$b) - 1))
  F <- squares / df / (left[4] / df.residual(models[[4]]))
  list(sum_squares = squares, df = df, residual_df = rep(df.residual(models[[4]]), 3), F = F,
       p = pf(F, df, df.residual(models[[4]]), lower.tail = FALSE),
       partial_eta_squared = squares / (squares + left[4]))
}
tukey <- function(table, value, group, confidence) {
  test <- TukeyHSD(aov(y ~ g, as_groups(table, value, group)), conf.level = confidence)$g
  # R's difference is that of the second and the first level.
  list(difference = -test[, "diff"], low = -test[, "upr"], high = -test[, "lwr"], p = test[, "p adj"])
}
kruskal <- function(table, value, group) {
  data <- as_groups(table, value, group)
  test <- kruskal.test(y ~ g, data)
  list(statistic = test$statistic, p = test$p.value, df = test$parameter, effect = test$statistic / (nrow(data) - 1))
}
stochastic <- function(x, y, confidence) {
  share <- mean(outer(x, y, ">")) + mean(outer(x, y, "==")) / 2
  z <- qnorm(0.5 + confidence / 2)
  m <- length(x)
  n <- length(y)
  variance <- function(a) a * (1 - a) * (1 + ((m + n) / 2 - 1) * ((1 - a) / (2 - a) + a / (1 + a))) / (m * n)
  gap <- function(a) (share - a)^2 - z^2 * variance(a)
  root <- function(from, to) uniroot(gap, c(from, to), tol = 1e-14)$root
  list(value = share, low = if (share == 0) 0 else root(1e-15, min(share, 1 - 1e-12)),
       high = if (share == 1) 1 else root(max(share, 1e-12), 1 - 1e-15))
}
dunn <- function(table, value, group, correction, confidence) {
  data <- as_groups(table, value, group)
  found <- ranks_and_sizes(data)
  N <- nrow(data)
  ties <- table(data$y)
  spread <- N * (N + 1) / 12 - sum(ties^3 - ties) / (12 * (N - 1))
  pair <- pairs_of(nlevels(data$g))
  z <- (found$mean[pair[1, ]] - found$mean[pair[2, ]]) / sqrt(spread * (1 / found$size[pair[1, ]] +
                                                                         1 / found$size[pair[2, ]]))
  values <- split(data$y, data$g)
  effects <- apply(pair, 2, function(two) unlist(stochastic(values[[two[1]]], values[[two[2]]], confidence)))
  p <- 2 * pnorm(-abs(z))
  list(z = z, p = p, p_corrected = p.adjust(p, correction), vda = effects["value", ], vda_low = effects["low", ],
       vda_high = effects["high", ])
}
welch <- function(first, second, confidence) {
  test <- t.test(first, second, conf.level = confidence)
  list(value = mean(first) - mean(second), low = test$conf.int[1], high = test$conf.int[2], p = test$p.value)
}
smd <- function(first, second, corrected, confidence) {
  test <- t.test(first, second, var.equal = TRUE)
  t <- unname(test$statistic)
  df <- unname(test$parameter)
  scale <- sqrt(1 / length(first) + 1 / length(second))
  if (corrected) scale <- scale * exp(lgamma(df / 2) - lgamma((df - 1) / 2)) / sqrt(df / 2)
  limit <- function(tail) uniroot(function(ncp) suppressWarnings(pt(t, df, ncp)) - tail, t + c(-12, 12),
                                  tol = 1e-13)$root
  list(value = t * scale, low = limit(0.5 + confidence / 2) * scale, high = limit(0.5 - confidence / 2) * scale,
       p = test$p.value)
}
bootstrap_clusters <- function(table, value, cluster = NULL, resamples, confidence) {
  y <- table[[value]]
  parts <- if (is.null(cluster)) as.list(y) else split(y, table[[cluster]])
  limits <- resampled(function() mean(unlist(parts[draw(length(parts))])), resamples, confidence)
  list(value = mean(y), low = limits[1], high = limits[2], n = length(parts))
}

# --- models

correlation <- function(table, first, second, method, within = NULL, cluster = NULL, resamples, confidence) {
  data <- data.frame(x = table[[first]], y = table[[second]])
  one <- function(part) {
    if (length(unique(part$x)) < 2 || length(unique(part$y)) < 2) NA else cor(part$x, part$y, method = method)
  }
  if (is.null(within)) {
    parts <- split(data, if (is.null(cluster)) seq_len(nrow(data)) else table[[cluster]])
    statistic <- function(chosen) one(do.call(rbind, parts[chosen]))
    if (is.null(cluster)) statistic <- function(chosen) one(data[chosen, ])
  } else {
    parts <- split(data, table[[within]])
    inside <- sapply(parts, one)
    parts <- parts[!is.na(inside)]
    inside <- inside[!is.na(inside)]
    sizes <- sapply(parts, nrow) - 1
    statistic <- function(chosen) weighted.mean(inside[chosen], sizes[chosen])
  }
  limits <- resampled(function() statistic(draw(length(parts))), resamples, confidence)
  list(value = statistic(seq_along(parts)), low = limits[1], high = limits[2], n = length(parts))
}
coefficients_of <- function(estimates, errors, quantile, tail) {
  list(estimate = estimates, standard_error = errors, statistic = estimates / errors,
       p = 2 * tail(-abs(estimates / errors)), low = estimates - quantile * errors, high = estimates + quantile * errors)
}
framed <- function(table, group, reference) {
  table[[group]] <- relevel(factor(table[[group]], levels = unique(table[[group]])), reference)
  table
}
linear <- function(table, value, group, covariates = NULL, reference, confidence) {
  model <- lm(reformulate(c(group, covariates), value), framed(table, group, reference))
  about <- summary(model)
  limits <- confint(model, level = confidence)
  list(estimate = about$coefficients[, 1], standard_error = about$coefficients[, 2],
       statistic = about$coefficients[, 3], p = about$coefficients[, 4], low = limits[, 1], high = limits[, 2],
       F = about$fstatistic[1], df = about$fstatistic[2:3], r_squared = about$r.squared,
       p_of_F = pf(about$fstatistic[1], about$fstatistic[2], about$fstatistic[3], lower.tail = FALSE))
}
mixed <- function(table, value, group, random, covariates = NULL, reference, confidence, share_errors = TRUE) {
  formula <- reformulate(c(group, covariates, sprintf("(1 | %s)", random)), value)
  options <- lme4::lmerControl(optimizer = "bobyqa", check.conv.singular = "ignore",
                               optCtrl = list(rhoend = 1e-10))
  model <- suppressMessages(lme4::lmer(formula, framed(table, group, reference), REML = TRUE, control = options))
  parts <- as.data.frame(lme4::VarCorr(model))
  variances <- c(parts$vcov[match(random, parts$grp)], sigma(model)^2)
  shares <- variances / sum(variances)
  found <- c(coefficients_of(lme4::fixef(model), sqrt(diag(as.matrix(vcov(model)))), qnorm(0.5 + confidence / 2), pnorm),
             list(variance = variances, share = shares, log_likelihood = as.numeric(logLik(model))))
  if (!share_errors) return(found)
  # The delta method on the ratios to the residual variance; the order of theta is that of cnms.
  deviance <- update(model, devFunOnly = TRUE)
  ratios <- lme4::getME(model, "theta")^2
  spread <- solve(numDeriv::hessian(function(one) deviance(sqrt(one)) / 2, ratios))
  order <- match(random, names(model@cnms))
  slopes <- numDeriv::jacobian(function(one) c(one[order], 1) / (1 + sum(one)), ratios)
  c(found, list(share_error = sqrt(diag(slopes %*% spread %*% t(slopes)))))
}

# --- power

study_power <- function(shares, raters, ratings, rater_correlation, level, simulations) {
  set.seed(1)
  count <- length(shares)
  cuts <- lapply(shares, function(one) qnorm(cumsum(one)[-length(one)]))
  turn <- factor((seq_len(raters * ratings) - 1) %% count + 1)
  pair <- pairs_of(count)
  hits <- replicate(simulations, {
    latent <- sqrt(rater_correlation) * rep(rnorm(raters), each = ratings) +
      sqrt(1 - rater_correlation) * rnorm(raters * ratings)
    y <- mapply(function(value, name) findInterval(value, cuts[[name]]), latent, as.integer(turn))
    p <- apply(pair, 2, function(two) {
      chosen <- turn %in% two
      kruskal.test(y[chosen], droplevels(turn[chosen]))$p.value
    })
    c(kruskal.test(y, turn)$p.value, p.adjust(p, "holm")) < level
  })
  list(overall = mean(hits[1, ]), pairs = rowMeans(hits[-1, , drop = FALSE]))
}
detectable_shift <- function(shares, first_size, second_size, power, level) {
  factor <- (qnorm(1 - level / 2) + qnorm(power)) * sqrt((first_size + second_size + 1) / (12 * first_size * second_size))
  moved <- function(odds) diff(c(0, plogis(qlogis(cumsum(shares)[-length(shares)]) - odds), 1))
  effect <- function(new) sum(outer(new, shares) * (row(diag(length(shares))) > col(diag(length(shares))))) +
    sum(new * shares) / 2
  gap <- function(odds) effect(moved(odds)) - 0.5 - factor * sqrt(1 - sum(((moved(odds) + shares) / 2)^3))
  odds <- uniroot(gap, c(0, 20), tol = 1e-13)$root
  list(vda = effect(moved(odds)), points = sum((moved(odds) - shares) * seq_along(shares)), odds_ratio = exp(odds))
}
simulate <- function(accuracies, seeds, questions, spreads, shares) {
  common <- rnorm(questions, sd = sqrt(shares[1]))
  mapply(function(accuracy, spread) {
    own <- common + rnorm(questions, sd = sqrt(shares[2]))
    at <- pmin(pmax(rnorm(seeds, accuracy, spread), 0.001), 0.999)
    t(sapply(at, function(one) (own + rnorm(questions, sd = sqrt(1 - sum(shares))) > qnorm(1 - one)) * 1))
  }, accuracies, spreads, SIMPLIFY = FALSE)
}
both_right <- function(accuracy, shares) {  # shares of questions: right in a seed, in two seeds, in two methods
  cut <- qnorm(1 - accuracy)
  joint <- function(common) integrate(function(x) dnorm(x, sd = sqrt(common)) *
                                        pnorm((x - cut) / sqrt(1 - common))^2, -Inf, Inf, rel.tol = 1e-10)$value
  list(one = accuracy, seeds = joint(sum(shares)), methods = joint(shares[1]))
}
power_of_accuracy <- function(accuracies, seeds, questions, spread, shares, level, simulations) {
  set.seed(1)
  found <- replicate(simulations, {
    answers <- simulate(accuracies, seeds, questions, rep(spread, 2), shares)
    p_of(crossed(answers[[2]], answers[[1]], mean_squares_by_hand)) < level
  })
  list(power = mean(found))
}

# --- the crossed test and linear mixed models

lmer_tests <- function(first, second, kenward_roger = FALSE) {
  long <- function(matrix, method) data.frame(y = as.vector(matrix), method = method,
                                              seed = paste(method, row(matrix)), question = as.vector(col(matrix)))
  data <- rbind(long(second, "a"), long(first, "b"))
  data$both <- paste(data$method, data$question)
  model <- suppressMessages(lmer(y ~ method + (1 | question) + (1 | both) + (1 | seed), data,
                                 control = lme4::lmerControl(check.conv.singular = "ignore")))
  row <- suppressMessages(summary(model))$coefficients[2, ]
  found <- list(value = row[["Estimate"]], error = row[["Std. Error"]], freedom = row[["df"]], p = row[["Pr(>|t|)"]],
                singular = as.numeric(lme4::isSingular(model)))
  if (!kenward_roger) return(found)
  test <- anova(model, ddf = "Kenward-Roger")
  c(found, kenward_roger_freedom = test$DenDF, kenward_roger_p = test[["Pr(>F)"]])
}

functions <- list(
  quantile = function(values, confidence) list(low = quantile(values, 0.5 - confidence / 2, type = 7),
                                               high = quantile(values, 0.5 + confidence / 2, type = 7)),
  p.adjust = function(p, method) list(value = p.adjust(p, method)),
  t_interval = t_interval, binomial = binomial, constant_pairs = constant_pairs, bootstrap_means = bootstrap_means,
  bootstrap_pairs = bootstrap_pairs, normal_bootstrap = normal_bootstrap, crossed = crossed, crossed_estimate = crossed_estimate,
  crossed_equivalent = crossed_equivalent, crossed_detectable = crossed_detectable, mcnemar = mcnemar, krippendorff = krippendorff,
  icc = icc, cronbach = cronbach, calibration = calibration, calibration_error = calibration_error, outliers = outliers, levene = levene,
  normality = normality, anova_two = anova_two, tukey = tukey, kruskal = kruskal, stochastic = stochastic, dunn = dunn,
  welch = welch, smd = smd, bootstrap_clusters = bootstrap_clusters, correlation = correlation, linear = linear,
  mixed = mixed, study_power = study_power, detectable_shift = detectable_shift, both_right = both_right,
  power_of_accuracy = power_of_accuracy, lmer_tests = lmer_tests)

paths <- commandArgs(trailingOnly = TRUE)
cases <- jsonlite::fromJSON(paths[1], simplifyDataFrame = FALSE)
results <- lapply(cases, function(case) {
  found <- tryCatch(do.call(functions[[case[["function"]]]], case$arguments),
                    error = function(problem) list(error_message = conditionMessage(problem)))
  lapply(found, unname)
})
jsonlite::write_json(results, paths[2], digits = I(17), auto_unbox = TRUE, na = "null", always_decimal = TRUE)
