from tests.support.scored import encoder, images, suite

__all__ = ["encoder", "images", "suite"]
