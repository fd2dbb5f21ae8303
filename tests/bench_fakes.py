"""Small layers, and engines that are right or wrong, for the tests of the benchmark."""

from pyconv._bench import cli, engines, records
from pyconv._bench.layers import Layer, Row


def layer(op="conv", **sizes) -> Layer:
    """Return a small layer; what is not said is 1, or follows."""
    ones = {name: 1 for name in ("sh", "sw", "dh", "dw", "groups")}
    zeros = {name: 0 for name in ("ph", "pw", "oph", "opw")}
    v = {"C": 4, "H": 7, "W": 9, "K": 6, "kh": 3, "kw": 2, **ones, **zeros, **sizes}
    for out, size, axis in (("OH", "H", "h"), ("OW", "W", "w")):
        span = v["d" + axis] * (v["k" + axis] - 1) + 1 - 2 * v["p" + axis]
        if op == "deconv":
            v[out] = (v[size] - 1) * v["s" + axis] + span + v["op" + axis]
        else:
            v[out] = (v[size] - span) // v["s" + axis] + 1
    passes = ("fwd", "bwd") if "pool" in op else ("fwd", "bwd_data", "bwd_weights")
    return Layer(1, "net", op, op, batches=(2,), passes=passes, **v)


CONV = layer(C=4, K=6, groups=2, sh=2, ph=1, pw=1, dw=2)
DEPTHWISE = layer(C=5, K=5, groups=5, kh=5, ph=2, sw=2)
DECONV = layer("deconv", C=4, K=6, groups=2, sh=3, sw=2, ph=1, oph=2, opw=1, dw=2)
MAXPOOL = layer("maxpool", C=3, K=3, kh=3, kw=3, sh=2, sw=1, ph=1, pw=1)
AVGPOOL = layer("avgpool", C=3, K=3, kh=3, kw=2, sh=2, sw=2, ph=1)
ALL = (CONV, DEPTHWISE, layer(), DECONV, MAXPOOL, AVGPOOL)


class Fake:
    """An engine that does what pyconv does, or something wrong."""

    version = "1"

    def __init__(self, name: str, spoil=None) -> None:
        self.name, self.spoil, self.seen = name, spoil, []
        self.real = engines.Pyconv()
        self.mode = self.real.mode

    def prepare(self, problem, pass_, threads):
        self.seen.append((problem, pass_, threads))
        run = self.real.prepare(problem, pass_, threads)
        return run if self.spoil is None else lambda: self.spoil(run())

    def arrays(self, result):
        return self.real.arrays(result)


def one_more(y):
    """Return something wrong at every place."""
    return y + 1


def off_at_one_place(y):
    """Return something wrong where nobody looks but at everything."""
    y = y.copy()
    y[1, 2, 20, 21] += 1
    return y


def fail(y):
    """Fail."""
    raise MemoryError("no room\nhere")


def bench_of(*fakes, path=None) -> cli.Bench:
    """Return a run with these engines."""
    return cli.Bench(fakes, records.Results(path, {"cpu": "this"}), 0.0)


ROW = Row(CONV, 2, "float32", "fwd", 2)
