"""The JSON schema of experiment files."""

import json

from gessl.grid.experiment import Experiment
from gessl.grid.shared import FROM, OWN


def schema() -> str:
    """JSON schema of experiment files (`workflow/schemas/experiment.schema.json`)."""
    tree = Experiment.model_json_schema()
    tree["properties"][FROM] = {
        "type": "string",
        "description": "a file of config/recipes, by its name: what stands there holds here, under what stands here",
    }
    shared = [key for key in tree["required"] if key not in OWN]
    tree |= {"required": list(OWN), "anyOf": [{"required": [FROM]}, {"required": shared}]}
    return json.dumps(tree, indent=2, sort_keys=True) + "\n"
