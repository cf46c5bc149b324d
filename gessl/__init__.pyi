from gessl.api.evaluate import evaluate as evaluate
from gessl.api.features import features as features
from gessl.api.inner_rate import inner_rate as inner_rate
from gessl.api.load import load as load
from gessl.api.sigma import sigma as sigma
from gessl.api.step import step as step
from gessl.errors import UserError as UserError

__version__: str
__all__ = ["UserError", "evaluate", "features", "inner_rate", "load", "sigma", "step"]
