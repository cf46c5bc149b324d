"""The scheme of the paper's later version (arXiv 2405.01053 v5), as far as public texts tell it. Experimental.

Seen: each mini-batch is split into support and query; a proxy f' is adapted on the support set with the base loss plus
a discriminative, alignment-based loss L_disc guided by an auxiliary "threshold" network g; f and g are updated on the
query set. Not seen, and ours: the form of L_disc, the shape of g, and that the outer loss is the base loss alone.

    L_disc = mean_i [ softplus((t_i - s_ii)/τ) + mean_{j≠i} softplus((s_ij - t_i)/τ) ],    s_ij = cos(z_i, z'_j)

over both directions between two views: the two views of an image shall be more alike than a threshold t_i = tanh g(h_i)
of its features h_i, different images less. f' is adapted with g fixed; g is then judged by how well the proxy that it
guided does on the query set (it could lower L_disc by moving its threshold alone, so L_disc is not in the outer loss).
"""

from gessl.bilevel.field import Field
from gessl.bilevel.inner import Rule, adapt, rises, split_rates
from gessl.bilevel.outer import TaskResult
from gessl.bilevel.settings import GesslSettings
from gessl.bilevel.solvers import SOLVERS
from gessl.methods.base import Tensors


def support_query_hypergradient(field: Field, params: Tensors, settings: GesslSettings) -> TaskResult:
    """∂ℓ(θ_K; query)/∂(θ, g) for one task, where θ_K is adapted on the first half of its images.

    The learner must be guided (`gessl/methods/_guided.py`). Cost with the exact solver: 3K + 1 (4K + 1 replayed) base
    steps of half a mini-batch.

    Raises:
        SolverError: the solver cannot give a hyper-gradient here.
    """
    theta, rates = split_rates(params)
    support, query = field.halves()
    path = adapt(support, theta, Rule.of(settings, theta, rates), settings, whole_first=False)
    judged = query.at(path.end.theta, settings.compared_views)
    loss = settings.ssl_weight * field.learner.judge(judged.outputs, judged.targets)
    hypergradient = SOLVERS[settings.solver.name](path, judged.differentiate(of=loss), settings)
    logs = {"loss": loss, "ssl_loss": path.start.loss, "ssl_loss_adapted": path.end.loss}
    logs["inner_rises"] = rises(path, [path.end.loss] if path.steps else [])
    return TaskResult.of(support, path, hypergradient, logs, [loss.detach()])
