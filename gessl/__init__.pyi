from gessl.api.features import features as features
from gessl.api.load import load as load
from gessl.errors import UserError as UserError

__version__: str
__all__ = ["UserError", "features", "load"]
