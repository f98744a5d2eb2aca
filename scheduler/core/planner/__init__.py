"""Deciding: from plan, intents and facts to the next change of the plan. Begin with `step`."""
