"""Diagnosis of accuracy lost in an int8 model: layers that lose it, causes, and fixes.

Every quantizer of the model gets a switch (`switches`), so one session runs it in float, in int8,
or in int8 in a single layer. `measure` runs these over data and keeps only sums; `causes` reads
them.
"""
