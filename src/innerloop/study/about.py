"""What an exported model says of the run that it comes from."""

from innerloop.evaluation import evaluate_many
from innerloop.study.run import Run


def about(run: Run) -> dict[str, str]:
    """The problem, the loss on fresh sequences with its standard error, the Bayes floor, and where it comes from."""
    task, how = run.spec.task.build(), run.spec.evaluate
    judged = evaluate_many(
        {"": run.exact_model}, task, sequences=how.sequences, seed=how.seed, per_layer=False
    )[""]
    return {
        "Problem": f"noisy linear regression, {task.summary}",
        "Adjusted loss": f"{judged.adjusted_loss.value:.5g} ± {judged.adjusted_loss.standard_error:.1g}, half the squared "
        f"error at a fresh query minus that of ridge with the true sigma, on {judged.sequences} sequences",
        "Bayes floor": f"{judged.floor.value:.5g}, what no predictor can be below",
        "Run": f"{run.folder}, seed {run.spec.train.seed}",
        "Git revision": run.revision,
    }
