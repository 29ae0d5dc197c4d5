"""The cases of further rules: selections, masks, attention, merges, padding, BatchNormalization."""

from __future__ import annotations

from rewrite_cases import Case

SLICES = """(float[n,6] x) => (float[n,2] y, float[n,4] z)
    <int64[1] zero = {0}, int64[1] two = {%d}, int64[1] far = {9223372036854775807},
     int64[1] one = {1}> {
        y = Slice (x, zero, two, one)
        z = Slice (x, two, far, one)
    }"""
GATHER = """(float[n,6,4] x) => (float[%s] y) <int64%s i = {%s}> { y = Gather <axis=1> (x, i) }"""
CONSTANT = """(float[n,2,3] x) => (float[n,2,3] y)
    <int64[3] m = {1,0,1}, int64[1] zero = {0}, float none = {0.0}, float low = {-3.0}> {
        u = Unsqueeze (m, zero)
        c = Cast <to=9> (u)
        b = Where (c, none, low)
        y = Add (x, b)
    }"""
TURNED = """(float[n,4,6,5] x) => (float[n,4,6,5] y) <float[4] scale> {
        t = Transpose <perm=[0,2,3,1]> (x)
        r = Relu (t)
        m = Mul (r, scale)
        y = Transpose <perm=[0,%s]> (m)
    }"""
MASKED = """(float[n,2,4,4] x, bool[n,1,4,4] m) => (float[n,2,4,4] y) <float low = {%s}> {
        y = Where (m, x, low)
    }"""
QKV = """(float[n,5,8] x) => (float[n,5,4] q, float[n,5,4] k, float[n,5,8] v)
    <float[8,4] wq, float[8,4] wk, float[8,8] wv> {
        q = MatMul (x, wq)
        k = MatMul (x, wk)
        v = MatMul (x, wv)
    }"""
WIDE = """(float[n,5,8] x) => (float[n,5,4] q, float[n,5,12] k)
    <float[8,16] w, float[16] b, int64[2] sizes = {4,12}> {
        m = MatMul (x, w)
        a = Add (m, b)
        q, k = Split <axis=2> (a, sizes)
    }"""
SIDE_BY_SIDE = """(float[n,4,6,6] x) => (float[n,8,6,6] y)
    <float[5,4,3,3] w, float[5] b, float[3,4,3,3] u> {
        a = Conv <pads=[1,1,1,1]> (x, w, b)
        c = Conv <pads=[1,1,1,1]> (x, u)
        y = Concat <axis=1> (a, c)
    }"""
GROUPED = """(float[n,4,6,6] x) => (float[n,6,4,4] y) <float[6,2,3,3] w, float[6] b> {
        y = Conv <group=2> (x, w, b)
    }"""
ATTENTION = """(float[n,2,4,8] q, float[n,2,4,8] k, bool[n,1,4,4] mask) => (float[n,2,4,8] y)
    <float zero = {0.0}, float low = {%s}> {
        t = Transpose <perm=[0,1,3,2]> (k)
        s = MatMul (q, t)
        bias = Where (mask, zero, low)
        a = Add (s, bias)
        p = Softmax <axis=-1> (a)
        i = IsNaN (p)
        g = Where (i, zero, p)
        y = MatMul (g, k)
    }"""
HEADS = """(float[1,5,12] x, float[1,5,12] z) => (float[1,3,5,5] y) <int64[4] split = {-1,5,3,4}> {
    q = Reshape (x, split) forward = Transpose <perm=[0,2,1,3]> (q)
    k = Reshape (z, split) keys = Transpose <perm=[0,2,3,1]> (k)
    y = MatMul (forward, keys) }"""
KEYS = """(float[n,2,l,8] k) => (float[n,2,8,l] y)
    <int64[1] rest = {-1}, int64[1] depth = {8}, int64[1] two = {2}, int64[1] three = {3},
     int64[1] zero = {0}> {
        s = Shape (k)
        lead = Slice (s, zero, two)
        length = Slice (s, two, three)
        there = Concat <axis=0> (rest, length, depth)
        back = Concat <axis=0> (lead, depth, length)
        a = Reshape (k, there)
        t = Transpose <perm=[0,2,1]> (a)
        y = Reshape (t, back)
    }"""
SCALED = """(float[n,5,8] x) => (float[n,2,5,4] y)
    <float[8,8] w, float[8] b, int64[4] heads = {0,5,2,4}, float scale = {0.35}> {
        m = MatMul (x, w)
        a = Add (m, b)
        r = Reshape (a, heads)
        t = Transpose <perm=[0,2,1,3]> (r)
        y = Mul (t, scale)
    }"""
NORMED = """(float[n,4,6,6] x) => (float[n,%s] y)
    <float[4] scale, float[4] shift, float[4] mean, float[4] var, float[2,4,3,3] w, float[2] b,
     int64[8] pads = {0,0,1,1,0,0,1,1}> { %s }"""
NORM_ONLY = "BatchNormalization (x, scale, shift, mean, var)"
PADDED = """(float[n,4,6,6] x) => (float[n,%s] y)
    <int64[8] pads = {0,0,1,0,0,0,1,2}, float[8,4,3,3] w> { r = Relu (x) p = Pad (r, pads) %s }"""
NARROW = """(float[n,4,6,6] x) => (float[n,4,4,4] y)
    <float[10,4,1,1] w0, float[10] b0, float[10,1,3,3] w1, float[4,10,1,1] w2, float zero = {0.0},
     float six = {6.0}> {
        a = Conv (x, w0, b0)
        c = Clip (a, zero, six)
        d = Conv <group=10> (c, w1)
        r = Relu (d)
        y = Conv (r, w2)
    }"""

CASES = [
    Case(
        "slices-from-split",
        "(float[n,6] x) => (float[n,2] y, float[n,4] z) "
        "<int64[2] s = {2,4}> { y, z = Split <axis=1> (x, s) }",
        "Slice Slice",
    ),
    Case("split-from-slices", SLICES % 2, "Split"),
    Case("slice-from-gather", GATHER % ("n,3,4", "[3]", "1,3,5"), "Slice"),
    Case("slice-from-gather", GATHER % ("n,4", "", "-1"), "Slice Squeeze", note="last"),
    Case(
        "gather-from-slice",
        """(float[n,6,4] x) => (float[n,4] y)
        <int64[1] a = {2}, int64[1] b = {3}, int64[1] one = {1}> {
            s = Slice (x, a, b, one)
            y = Squeeze (s, one)
        }""",
        "Gather",
    ),
    Case("constants-folded", CONSTANT, "Add"),
    Case(
        "transpose-pair",
        "(float[n,4,6] x) => (float[6,n,4] y) { t = Transpose <perm=[0,2,1]> (x)"
        " y = Transpose <perm=[1,0,2]> (t) }",
        "Transpose",
    ),
    Case(
        "transpose-pair",
        "(float[n,4,6] x) => (float[n,4,6] y) { t = Transpose <perm=[0,2,1]> (x)"
        " u = Transpose <perm=[0,2,1]> (t) y = Relu (u) }",
        "Relu",
        note="none left",
    ),
    Case("transpose-through", TURNED % "3,1,2", "Relu Mul"),
    Case("mask-as-add", MASKED % "-inf", "Where Add"),
    Case(
        "mask-as-where",
        """(float[n,2,4,4] x, bool[n,1,4,4] m) => (float[n,2,4,4] y)
        <float zero = {0.0}, float low = {-3.4028235e38}> {
            b = Where (m, zero, low)
            y = Add (b, x)
        }""",
        "Where",
    ),
    Case("matmuls-merged", QKV, "MatMul Split"),
    Case("matmul-split", WIDE, "MatMul Add MatMul Add"),
    Case("convs-merged", SIDE_BY_SIDE, "Conv"),
    Case("grouped-as-convs", GROUPED, "Split Conv Conv Concat"),
    Case("grouped-as-dense", GROUPED, "Conv"),
    Case(
        "nan-guard-dropped",
        ATTENTION % "-3.4028235e38",
        "Transpose MatMul Where Add Softmax MatMul",
    ),
    Case("keys-transposed", KEYS, "Transpose"),
    Case("heads-in-place", HEADS, "Reshape Transpose Reshape Transpose MatMul"),
    Case("scale-into-weights", SCALED, "MatMul Add Reshape Transpose"),
    Case("batchnorm-open", NORMED % ("4,6,6", f"y = {NORM_ONLY}"), "Mul Add"),
    Case(
        "batchnorm-into-next-conv",
        NORMED % ("2,4,4", f"a = {NORM_ONLY} y = Conv (a, w, b)"),
        "Conv",
    ),
    Case(
        "batchnorm-through-concat",
        """(float[n,4,6,6] x) => (float[n,5,6,6] y)
        <float[2,4,1,1] u, float[3,4,1,1] v, float[5] scale, float[5] shift, float[5] mean,
         float[5] var> {
            a = Conv (x, u)
            b = Conv (x, v)
            c = Concat <axis=1> (a, b)
            y = BatchNormalization (c, scale, shift, mean, var)
        }""",
        "Conv Conv BatchNormalization BatchNormalization Concat",
    ),
    Case(
        "batchnorm-through-pad",
        (
            NORMED
            % ("4,8,8", "p = Pad (x, pads) y = BatchNormalization (p, scale, shift, mean, var)")
        )
        .replace("float[4] shift", "float[4] shift = {0,0,0,0}")
        .replace("float[4] mean", "float[4] mean = {0,0,0,0}"),
        "BatchNormalization Pad",
    ),
    Case("pad-into-conv", PADDED % ("8,6,6", "y = Conv (p, w)"), "Relu Conv"),
    Case(
        "pad-out-of-conv",
        "(float[n,4,6,6] x) => (float[n,8,5,6] y) <float[8,4,3,3] w> "
        "{ y = Conv <pads=[0,1,1,1]> (x, w) }",
        "Pad Conv",
    ),
    Case(
        "pad-into-pool", PADDED % ("4,6,6", "y = MaxPool <kernel_shape=[3,3]> (p)"), "Relu MaxPool"
    ),
    Case(
        "pad-into-pool",
        PADDED % ("4,6,6", "y = AveragePool <kernel_shape=[3,3]> (p)"),
        "Relu AveragePool",
        note="mean",
    ),
    Case("channels-to-block", NARROW, "Conv Clip Conv Relu Conv"),
]

REFUSALS = [
    ("split-from-slices", (SLICES % 2).replace("Slice (x, two", "Slice (x, one"), "whole axis"),
    ("slice-from-gather", GATHER % ("n,3,4", "[3]", "0,1,5"), "not evenly spaced"),
    (
        "transpose-through",
        (TURNED % "2,1,3").replace("float[n,4,6,5] y", "float[n,5,6,4] y"),
        "not the inverse",
    ),
    (
        "matmul-split",
        WIDE.replace("float[n,5,12] k)", "float[n,5,12] k, float[n,5,16] a)"),
        "read elsewhere",
    ),
    (
        "convs-merged",
        SIDE_BY_SIDE.replace("c = Conv <", "c = Conv <strides=[1,1], dilations=[1,1], ")
        .replace("float[3,4,3,3] u", "float[3,4,1,1] u")
        .replace(", pads=[1,1,1,1]> (x, u)", "> (x, u)"),
        "differ in kernel",
    ),
    ("nan-guard-dropped", ATTENTION % "-inf", "minus infinity"),
    (
        "heads-in-place",
        """(float[n,5,3,4] q, float[n,3,4,5] keys) => (float[n,3,5,5] y) {
            forward = Transpose <perm=[0,2,1,3]> (q)
            y = MatMul (forward, keys) }""",
        "not known to be one",
    ),
    ("keys-transposed", KEYS.replace("(rest, length, depth)", "(rest, depth, length)"), "do more"),
    (
        "batchnorm-into-next-conv",
        NORMED % ("2,6,6", f"a = {NORM_ONLY} y = Conv <pads=[1,1,1,1]> (a, w, b)"),
        "it pads with zeros",
    ),
    (
        "batchnorm-through-pad",
        NORMED % ("4,8,8", "p = Pad (x, pads) y = BatchNormalization (p, scale, shift, mean, var)"),
        "zeros of the border",
    ),
    (
        "pad-into-conv",
        (PADDED % ("8,4,6", "y = Conv (p, w)")).replace("{0,0,1,0,0,0,1,2}", "{0,0,-1,0,0,0,1,2}"),
        "cuts the image",
    ),
    (
        "pad-into-pool",
        (PADDED % ("4,6,6", "y = MaxPool <kernel_shape=[3,3]> (p)")).replace("r = Relu", "r = Neg"),
        "below the zeros",
    ),
    ("channels-to-block", NARROW.replace("zero = {0.0}", "zero = {0.5}"), "leaves out zero"),
    ("grouped-as-dense", GROUPED.replace("group=2", 'group=2, auto_pad="VALID"'), "auto_pad"),
]
