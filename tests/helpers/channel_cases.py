"""Small graphs, one for each operator that channels are followed through, of any width."""

from __future__ import annotations

import graphs
import numpy as np

from trimtab.core.model import Model

IMAGE = "(float[N, 3, 8, 8] x) => (float[N, 5, {h}, {h}] y)"


def image(
    body: str, weights: str, *, head: int = 0, h: int = 8, opset: int = 18, **arrays
) -> Model:
    """conv(3 -> c), the body from `a` to `b`, conv(head -> 5)."""
    channels = weights.split("c=", 1)[1].split(";", 1)[0]
    rest = weights.split(";", 1)[1].strip()
    c = int(channels)
    return graphs.model_of(
        f"{IMAGE.format(h=h)} <float[{c},3,3,3] w_in, float[{c}] b_in, "
        f"float[5,{head or c},1,1] w_out{', ' if rest else ''}{rest}>"
        f"{{ a = Conv<pads=[1,1,1,1]>(x, w_in, b_in) {body} y = Conv(b, w_out) }}",
        opset=opset,
        **arrays,
    )


def sequence(body: str, weights: str, *, c: int, head: int = 0, opset: int = 18, **arrays) -> Model:
    """matmul(3 -> c) of (N, 6, 3), the body from `a` to `b`, matmul(head -> 5)."""
    return graphs.model_of(
        f"(float[N, 6, 3] x) => (float[N, 6, 5] y) <float[3,{c}] w_in, "
        f"float[{c}] b_in, float[{head or c},5] w_out{', ' if weights else ''}{weights}>"
        f"{{ a0 = MatMul(x, w_in) a = Add(a0, b_in) {body} y = MatMul(b, w_out) }}",
        opset=opset,
        **arrays,
    )


def _images(c: int) -> dict[str, Model]:
    d = 2 * c
    return {
        "chain": image("b = Relu(a)", f"c={c};"),
        "sigmoid, which is not 0 at 0": image("b = Sigmoid(a)", f"c={c};"),
        "residual": image(
            "r = Relu(a) t = Conv<pads=[1,1,1,1]>(r, w1) b = Add(t, r)",
            f"c={c}; float[{c},{c},3,3] w1",
        ),
        "depthwise": image(
            f"b = Conv<group={c}, pads=[1,1,1,1]>(a, w1, b1)",
            f"c={c}; float[{c},1,3,3] w1, float[{c}] b1",
        ),
        "depthwise with multiplier": image(
            f"b = Conv<group={c}, pads=[1,1,1,1]>(a, w1)", f"c={c}; float[{d},1,3,3] w1", head=d
        ),
        "grouped": image(
            "b = Conv<group=2>(a, w1, b1)",
            f"c={c}; float[{d},{c // 2},1,1] w1, float[{d}] b1",
            head=d,
        ),
        "transposed": image(
            "b = ConvTranspose<strides=[2,2]>(a, w1, b1)",
            f"c={c}; float[{c},{d},2,2] w1, float[{d}] b1",
            head=d,
            h=16,
        ),
        "grouped transposed": image(
            "b = ConvTranspose<group=2>(a, w1)", f"c={c}; float[{c},{c},1,1] w1", head=d
        ),
        "batch normalisation": image(
            "n = BatchNormalization(a, s, o, m, var) b = Relu(n)",
            f"c={c}; float[{c}] s, float[{c}] o, float[{c}] m, float[{c}] var",
        ),
        "instance normalisation": image(
            "b = InstanceNormalization(a, s, o)", f"c={c}; float[{c}] s, float[{c}] o"
        ),
        "group normalisation": image(
            "b = GroupNormalization<num_groups=2>(a, s, o)",
            f"c={c}; float[{c}] s, float[{c}] o",
            opset=21,
        ),
        "group normalisation written out": image(
            "g0 = Reshape(a, rs) g1 = InstanceNormalization(g0, s, o) g2 = Reshape(g1, rb) "
            "g3 = Mul(g2, k) b = Add(g3, l)",
            f"c={c}; int64[3] rs = {{0, 2, -1}}, int64[4] rb = {{0, {c}, 8, 8}}, float[2] s, "
            "float[2] o, "
            f"float[{c},1,1] k, float[1,{c},1,1] l",
        ),
        "prelu": image("b = PRelu(a, s)", f"c={c}; float[{c},1,1] s"),
        "broadcasting constants": image(
            "p = Mul(a, s) q = Add(o, p) r = Div(q, var1) t = Max(r, z) b = Sub(t, o)",
            f"c={c}; float[{c},1,1] s, float[1,{c},1,1] o, float[{c},1,1] var1, float z",
        ),
        "where": image(
            "m = Greater(a, s) b = Where(m, a, o)", f"c={c}; float[{c},1,1] s, float[{c},1,1] o"
        ),
        "concat": image(
            "r = Relu(a) t = Conv(r, w1) b = Concat<axis=1>(r, t, a)",
            f"c={c}; float[{d},{c},1,1] w1",
            head=2 * c + d,
        ),
        "split by sizes": image(
            "p, q = Split<axis=1>(a, sizes) r = Sigmoid(p) b = Mul(q, r)",
            f"c={c}; int64[2] sizes = {{{c // 2}, {c // 2}}}",
            head=c // 2,
        ),
        "split evenly": image(
            "p, q = Split<axis=1, num_outputs=2>(a) r = Sigmoid(p) b = Concat<axis=1>(q, r, q)",
            f"c={c};",
            head=3 * c // 2,
        ),
        "slice": image(
            "b = Slice(a, st, en, ax)",
            f"c={c}; int64[1] st = {{1}}, int64[1] en = {{-1}}, int64[1] ax = {{1}}",
            head=c - 2,
        ),
        "slice with a step, backwards": image(
            "b = Slice(a, st, en, ax, by)",
            f"c={c}; int64[1] st = {{-1}}, int64[1] en = {{-9999}}, int64[1] ax = {{1}}, "
            f"int64[1] by = {{-2}}",
            head=c // 2,
        ),
        "gather": image(
            "b = Gather<axis=1>(a, at)", f"c={c}; int64[4] at = {{2, 0, -1, 0}}", head=4
        ),
        "padded channels": image(
            "t = Conv(a, w1) s = Slice(a, st, en, ax) p = Pad(s, pads) b = Add(t, p)",
            f"c={c}; float[{d},{c},1,1] w1, int64[1] st = {{0}}, int64[1] en = {{9}}, "
            f"int64[1] ax = {{2}}, "
            f"int64[8] pads = {{0, {c // 2}, 0, 0, 0, {c // 2}, 0, 0}}",
            head=d,
        ),
        "flatten and unflatten": image(
            "f = Flatten(a) g0 = Gemm<transB=1>(f, w1, b1) b = Reshape(g0, rb)",
            f"c={c}; float[{64 * d},{64 * c}] w1, float[{64 * d}] b1, int64[4] rb = {{-1, {d}, "
            f"8, 8}}",
            head=d,
        ),
        "channel shuffle": image(
            "s = Reshape(a, rs) t = Transpose<perm=[0,2,1,3,4]>(s) u = Reshape(t, ru) "
            "b = Conv<group=2>(u, w1)",
            f"c={c}; int64[5] rs = {{0, 2, {c // 2}, 8, 8}}, int64[4] ru = {{0, {c}, 8, 8}}, "
            f"float[{c},{c // 2},1,1] w1",
        ),
        "depth to space": image(
            "t = Conv(a, w1, b1) b = DepthToSpace<blocksize=2>(t)",
            f"c={c}; float[{4 * c},{c},1,1] w1, float[{4 * c}] b1",
            h=16,
        ),
        "depth to space, columns": image(
            'b = DepthToSpace<blocksize=2, mode="CRD">(a)', f"c={c};", head=c // 4, h=16
        ),
        "space to depth": image("b = SpaceToDepth<blocksize=2>(a)", f"c={c};", head=4 * c, h=4),
        "pixel shuffle written out": image(
            "s = Reshape(a, rs) t = Transpose<perm=[0,1,4,2,5,3]>(s) b = Reshape(t, rb)",
            f"c={c}; int64[6] rs = {{-1, {c // 4}, 2, 2, 8, 8}}, int64[4] rb = {{-1, {c // 4}, "
            f"16, 16}}",
            head=c // 4,
            h=16,
        ),
        "pooling": image(
            "p = MaxPool<kernel_shape=[2,2], strides=[2,2]>(a) "
            "b = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(p)",
            f"c={c};",
            h=4,
        ),
        "resize by sizes": image(
            "b = Resize(a, , , sizes)", f"c={c}; int64[4] sizes = {{2, {c}, 16, 16}}", h=16
        ),
        "resize by scales": image(
            "b = Resize(a, , sc)", f"c={c}; float[4] sc = {{1.0, 1.0, 2.0, 2.0}}", h=16
        ),
        "squeeze and excite": image(
            "p = GlobalAveragePool(a) q = Conv(p, w1, b1) r = Relu(q) s = Conv(r, w2) "
            "t = Sigmoid(s) b = Mul(a, t)",
            f"c={c}; float[4,{c},1,1] w1, float[4] b1, float[{c},4,1,1] w2",
        ),
        "mean, squeeze, unsqueeze": image(
            "p = ReduceMean<keepdims=0>(a, sp) q = Unsqueeze(p, sp) r = Squeeze(q, sp) "
            "s = Unsqueeze(r, sp) b = Sub(a, s)",
            f"c={c}; int64[2] sp = {{2, 3}}",
        ),
    }


def _sequences(c: int) -> dict[str, Model]:
    heads, width = 4, c // 4
    split = f"int64[4] rs = {{0, 6, {heads}, {width}}}, int64[3] rb = {{0, 6, {c}}}"
    qkv = f"float[{c},{c}] wq, float[{c}] bq, float[{c},{c}] wk, float[{c},{c}] wv, {split}"
    project = (
        "q0 = MatMul(a, wq) q1 = Add(q0, bq) k0 = MatMul(a, wk) v0 = MatMul(a, wv) "
        "q2 = Reshape(q1, rs) k2 = Reshape(k0, rs) v2 = Reshape(v0, rs) "
        "q = Transpose<perm=[0,2,1,3]>(q2) v = Transpose<perm=[0,2,1,3]>(v2) "
    )
    merge = "o1 = Transpose<perm=[0,2,1,3]>(o) b = Reshape(o1, rb)"
    return {
        "feed-forward": sequence(
            "t = MatMul(a, w1) u = Add(t, b1) v = Gelu(u) w = MatMul(v, w2) b = Add(w, a)",
            f"float[{c},{2 * c}] w1, float[{2 * c}] b1, float[{2 * c},{c}] w2",
            c=c,
            opset=20,
        ),
        "layer normalisation": sequence(
            "b = LayerNormalization(a, s, o)", f"float[{c}] s, float[{c}] o", c=c
        ),
        "root mean square normalisation": sequence(
            "b = RMSNormalization(a, s)", f"float[{c}] s", c=c, opset=23
        ),
        "tiles and a mean of three": sequence(
            "p = Tile(s, once) q = Mean(a, p, a) r = Unsqueeze(q, one) "
            "t = Concat<axis=1>(r, r) u = ReduceMax<keepdims=0>(t, one) b = Sub(u, p)",
            f"float[1,1,{c}] s, int64[3] once = {{1, 6, 1}}, int64[1] one = {{1}}",
            c=c,
        ),
        "embedding": graphs.model_of(
            "(int64[N, 6] ids) => (float[N, 6, 5] y) "
            f"<float[50,{c}] table, float[6,{c}] pos, float[{c},5] w_out>"
            "{ e = Gather(table, ids) a = Add(e, pos) b = Relu(a) y = MatMul(b, w_out) }"
        ),
        "gemm with its first factor transposed": graphs.model_of(
            "(float[4, 8] x) => (float[8, 5] y) "
            f"<float[{c},4] w1, float[{c},1] b1, float[{c},5] w2>"
            "{ p = MatMul(w1, x) a = Add(p, b1) y = Gemm<transA=1, alpha=0.5>(a, w2) }"
        ),
        "attention written out": sequence(
            f"{project} k = Transpose<perm=[0,2,3,1]>(k2) t = MatMul(q, k) u = Mul(t, f) "
            f"p = Softmax<axis=-1>(u) o = MatMul(p, v) {merge}",
            f"{qkv}, float f = {{0.5}}",
            c=c,
        ),
        "attention": sequence(
            f"{project} k = Transpose<perm=[0,2,1,3]>(k2) o = Attention(q, k, v) {merge}",
            qkv,
            c=c,
            opset=23,
        ),
        "attention of one product": sequence(
            "t = MatMul(a, wq) s = Reshape(t, rs) u = Transpose<perm=[2,0,3,1,4]>(s) "
            "q = Gather<axis=0>(u, i0) k = Gather<axis=0>(u, i1) v = Gather<axis=0>(u, i2) "
            "kt = Transpose<perm=[0,1,3,2]>(k) w = MatMul(q, kt) p = Softmax<axis=-1>(w) "
            f"o = MatMul(p, v) {merge}",
            f"float[{c},{3 * c}] wq, int64[5] rs = {{0, 6, 3, {heads}, {width}}}, "
            f"int64[3] rb = {{0, 6, {c}}}, int64 i0 = {{0}}, int64 i1 = {{1}}, int64 i2 = {{2}}",
            c=c,
        ),
        "shapes computed while it runs": sequence(
            "s = Shape(a) n = Gather<axis=0>(s, i0) l = Gather<axis=0>(s, i1) "
            "t = Concat<axis=0>(n, l, hw) u = Reshape(a, t) v = Transpose<perm=[0,2,1,3]>(u) "
            "r = Relu(v) w = Transpose<perm=[0,2,1,3]>(r) z = Concat<axis=0>(n, l, m1) "
            "b = Reshape(w, z)",
            f"int64[1] i0 = {{0}}, int64[1] i1 = {{1}}, int64[2] hw = {{{heads}, {width}}}, "
            "int64[1] m1 = {-1}",
            c=c,
        ),
        "batch and heads merged": sequence(
            "s = Shape(a) n = Gather<axis=0>(s, i0) nh = Mul(n, h) t = Concat<axis=0>(nh, lw) "
            "q0 = MatMul(a, wq) q2 = Reshape(q0, rs) q3 = Transpose<perm=[0,2,1,3]>(q2) "
            "q = Reshape(q3, t) r = Relu(q) u = Concat<axis=0>(n, hlw) o = Reshape(r, u) " + merge,
            f"float[{c},{c}] wq, {split}, int64[1] i0 = {{0}}, int64[1] h = {{{heads}}}, "
            f"int64[2] lw = {{6, {width}}}, int64[3] hlw = {{{heads}, 6, {width}}}",
            c=c,
        ),
        "einsum": sequence(
            'b = Einsum<equation="nlc,cd->nld">(a, w1)', f"float[{c},{2 * c}] w1", c=c, head=2 * c
        ),
        "rotary halves": sequence(
            "p, q = Split<axis=-1, num_outputs=2>(a) n = Neg(q) r = Concat<axis=-1>(n, p) "
            "s = Mul(a, co) t = Mul(r, si) b = Add(s, t)",
            f"float[6,{c}] co, float[6,{c}] si",
            c=c,
        ),
        "expanded token": sequence(
            "s = Shape(a) n = Gather<axis=0>(s, i0) t = Concat<axis=0>(n, one) u = Expand(cls, t) "
            "v = Concat<axis=1>(u, a) w = Slice(v, st, en, ax) b = Add(w, pos)",
            f"int64[1] i0 = {{0}}, int64[2] one = {{1, {c}}}, float[1,1,{c}] cls, "
            f"int64[1] st = {{1}}, "
            f"int64[1] en = {{99}}, int64[1] ax = {{1}}, float[1,6,{c}] pos",
            c=c,
        ),
        "tied embedding": graphs.model_of(
            "(int64[N, 6] ids) => (float[N, 6, 500] y) "
            f"<float[500,{c}] table, float[{c},{c}] w1>"
            "{ e = Gather(table, ids) a = MatMul(e, w1) r = Add(a, e) "
            "t = Transpose(table) y = MatMul(r, t) }"
        ),
        "shared constant": sequence(
            "p = Mul(a, s) t = MatMul(p, w1) u = Mul(t, s) b = Relu(u)",
            f"float[{c}] s, float[{c},{c}] w1",
            c=c,
        ),
    }


def _quantized(c: int) -> dict[str, Model]:
    rng = np.random.default_rng(0)
    d = 2 * c
    model = image(
        "w = DequantizeLinear<axis=0>(wq, sw) q = QuantizeLinear(a, sa, za) "
        "d = DequantizeLinear(q, sa, za) t = Conv(d, w) "
        "u = QuantizeLinear<axis=1>(t, st, zt) b = DequantizeLinear<axis=1>(u, st, zt)",
        f"c={c}; int8[{d},{c},1,1] wq, float[{d}] sw, float sa, uint8 za, float[{d}] st, "
        f"uint8[{d}] zt",
        head=d,
        wq=rng.integers(-99, 99, (d, c, 1, 1), np.int8),
        sw=rng.uniform(0.01, 0.02, d).astype(np.float32),
        sa=np.float32(0.05),
        za=np.uint8(128),
        st=rng.uniform(0.01, 0.1, d).astype(np.float32),
        zt=np.full(d, 128, np.uint8),
    )
    return {"per-channel quantization": model}


def cases(c: int) -> dict[str, Model]:
    """All graphs, with `c` channels, a multiple of 4."""
    return _images(c) | _sequences(c) | _quantized(c)


NAMES = tuple(cases(8))
