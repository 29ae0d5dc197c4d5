"""The same function in another form: norms folded or not, branches taken, a newer opset."""
