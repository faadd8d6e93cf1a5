from refbert.reference import ReferenceBackend


class NumpyBackend(ReferenceBackend):
    name = "numpy"
    dtypes = ("float32", "float64")
