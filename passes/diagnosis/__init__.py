"""Why an int8 model is wrong: which layers hurt its answer, by what, and what would mend them.

Every quantizer of the model gets a switch (`switches`), so one session runs it float, int8, or int8
in a single layer. `measure` runs these over data and keeps sums alone; `causes` reads them.
"""
