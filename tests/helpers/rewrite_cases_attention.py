"""The cases of attention, softmax, Einsum, Resize, and of convolutions in parts."""

from __future__ import annotations

from rewrite_cases import Case

CONTRIB = ', "com.microsoft" : 1'
OPEN = """(float[n,2,5,4] q, float[n,2,6,4] k, float[n,2,6,4] v, float[n,1,5,6] mask)
    => (float[n,2,5,4] y) <float scale = {0.5}> {
        t = Transpose <perm=[0,1,3,2]> (k)
        s = MatMul (q, t)
        m = Mul (s, scale)
        a = Add (m, mask)
        p = Softmax <axis=-1> (a)
        y = MatMul (p, v)
    }"""
BOTH_SCALED = """(float[n,2,5,4] q, float[n,6,2,4] k, float[n,2,6,4] v)
    => (float[n,2,5,4] y) <float scale = {0.7}> {
        f = Mul (q, scale)
        t = Transpose <perm=[0,2,3,1]> (k)
        g = Mul (t, scale)
        s = MatMul (f, g)
        p = Softmax (s)
        y = MatMul (p, v)
    }"""
#: Rows of width 8 in two heads of depth 4; %s makes queries, keys and values.
LAYERS = """(float[n,5,8] x, float[n,1,5,5] mask) => (float[n,5,8] y)
    <float[8,8] wq, float[8] bq, float[8,8] wk, float[8] bk, float[8,8] wv, float[8] bv,
     int64[4] heads = {0,0,2,4}, int64[3] merged = {0,0,8}, float scale = {0.5}> {
        mq = MatMul (x, wq)
        fq = Add (mq, bq)
        mk = MatMul (x, wk)
        fk = Add (mk, bk)
        mv = MatMul (x, wv)
        fv = Add (mv, bv)
        rq = Reshape (fq, heads)
        rk = Reshape (fk, heads)
        rv = Reshape (fv, heads)
        q = Transpose <perm=[0,2,1,3]> (rq)
        k = Transpose <perm=[0,2,3,1]> (rk)
        v = Transpose <perm=[0,2,1,3]> (rv)
        s = MatMul (q, k)
        c = Mul (s, scale)
        a = Add (c, mask)
        p = Softmax <axis=-1> (a)
        o = MatMul (p, v)
        t = Transpose <perm=[0,2,1,3]> (o)
        y = Reshape (t, merged)
    }"""
ONE = """(float[n,2,5,4] q, float[n,2,6,4] k, float[n,2,6,4] v, float[n,1,5,6] mask)
    => (float[n,2,5,4] y) { y = Attention <%s> (q, k, v, mask) }"""
MULTI = """(float[n,5,8] q, float[n,6,8] k, float[n,6,8] v) => (float[n,5,8] y)
    { y = com.microsoft.MultiHeadAttention <num_heads=2%s> (q, k, v) }"""
EXPANDED = """(float[n,2,4,4] x) => (float[n,2,4,4] y)
    <bool[1,1,4,1] c = {%s}, float zero = {0.0}, float low = {-3.4028235e38},
     int64[3] rest = {1,4,4}> {
        h = Shape <start=0, end=1> (x)
        s = Concat <axis=0> (h, rest)
        e = Expand (c, s)
        b = Where (e, zero, low)
        r = Relu (x)
        y0 = Add (r, b)
        y = Neg (y0)
    }"""
UP = """(float[n,3,4,5] x) => (float[n,3,8,%d] y) <float[4] scales = {1,1,2,%d}> {
        y = Resize <mode="nearest"%s> (x, , scales)
    }"""
FLOOR = ', coordinate_transformation_mode="asymmetric", nearest_mode="floor"'
DOUBLE = UP % (10, 2, FLOOR)
TILED = """(float[n,3,4,5] x) => (float[n,3,8,15] y)
    <int64[6] apart = {0,3,4,1,5,1}, int64[6] copies = {1,1,1,2,1,3},
     int64[4] shape = {0,3,8,15}> {
        a = Reshape (x, apart)
        t = Tile (a, copies)
        y = Reshape (t, shape)
    }"""
SIZED = """(float[2,3,4,5] x) => (float[2,3,8,10] y) <int64[4] sizes = {2,3,8,10}> {
        y = Resize <mode="nearest", coordinate_transformation_mode="asymmetric",
                    nearest_mode="floor"> (x, , , sizes)
    }"""
SOFTMAX_OPEN = """(float[n,5,4] x) => (float[n,5,4] y) <int64[1] one = {1}> {
        m = ReduceMax (x, one)
        d = Sub (x, m)
        e = Exp (d)
        s = ReduceSum (e, one)
        y = Div (e, s)
    }"""
EINSUM = '(float[n,%s] a, float[n,%s] b) => (float[n,%s] y) { y = Einsum <equation="%s"> (a, b) }'
PARTS = """(float[n,4,6,6] x) => (float[n,3,4,4] a, float[n,5,4,4] b)
    <float[8,4,3,3] w, float[8] bias, int64[2] sizes = {3,5}> {
        c = Conv (x, w, bias)
        a, b = Split <axis=1> (c, sizes)
    }"""
APART = """(float[n,4,6,6] x) => (float[n,6,4,4] y)
    <float[3,2,3,3] w, float[3] bias, float[3,2,3,3] u, int64[2] sizes = {2,2}> {
        p, q = Split <axis=1> (x, sizes)
        a = Conv (p, w, bias)
        b = Conv (q, u)
        y = Concat <axis=1> (a, b)
    }"""
POINTWISE = """(float[n,4,6,6] x) => (float[n,8,6,6] y) <float[8,4,1,1] w, float[8] b> {
        y = Conv (x, w, b)
    }"""
COLUMNS = """(float[n,4,6,6] x) => (float[n,8,6,6] y)
    <float[8,4] w, float[8,1] b, int64[3] flat = {0,4,-1}, int64[4] image = {0,8,6,6}> {
        c = Reshape (x, flat)
        m = MatMul (w, c)
        a = Add (m, b)
        y = Reshape (a, image)
    }"""
SUMMED = """(float[n,4,6,6] x) => (float[n,3,6,6] y)
    <float[3,4,1,1] u, float[3,4,1,1] v, float[3] scale, float[3] shift, float[3] mean,
     float[3] var> {
        a = Conv (x, u)
        b = Conv (x, v)
        s = Add (a, b)
        y = BatchNormalization (s, scale, shift, mean, var)
    }"""
TANH = """(float[n,8] x) => (float[n,8] y)
    <float three = {3.0}, float cubic = {0.044715}, float root = {0.7978845608},
     float one = {1.0}, float half = {0.5}> {
        c = Pow (x, three)
        s = Mul (c, cubic)
        i = Add (x, s)
        u = Mul (i, root)
        t = Tanh (u)
        g = Add (t, one)
        h = Mul (x, half)
        y = Mul (h, g)
    }"""
QLINEAR = """(uint8[n,4,6,6] x) => (uint8[n,8,4,4] y)
    <float sx = {0.05}, uint8 zx = {128}, int8[8,4,3,3] w, float sw = {0.02}, int8 zw = {0}> {
        y = QLinearConv (x, sx, zx, w, sw, zw, sx, zx)
    }"""
QUICK = """(float[n,8] x) => (float[n,8] y) <float a = {1.702}> {
        m = Mul (x, a) s = Sigmoid (m) y = Mul (x, s) }"""
FAST = '(float[n,8] x) => (float[n,8] y) { y = Gelu <approximate="tanh"> (x) }'
OPENED = "Mul Mul Add Mul Tanh Add Mul Mul"

CASES = [
    Case("attention-closed", OPEN, "Attention", opset=23),
    Case("attention-closed", BOTH_SCALED, "Transpose Attention", opset=23, note="scaled twice"),
    Case(
        "attention-open",
        ONE % "is_causal=0",
        "Transpose MatMul Mul Add Softmax MatMul",
        opset=23,
    ),
    Case(
        "attention-open",
        ONE % "scale=0.3",
        "Transpose MatMul Mul Add Softmax MatMul",
        opset=23,
        note="scaled",
    ),
    Case("attention-multihead", LAYERS, "MatMul Add MatMul Add MatMul Add MultiHeadAttention"),
    Case("attention-packed", LAYERS, "Attention"),
    Case(
        "multihead-open",
        MULTI % "",
        "Reshape Transpose Reshape Transpose Reshape Transpose MatMul Mul Softmax MatMul "
        "Transpose Reshape",
        imports=CONTRIB,
    ),
    Case("mask-constant", EXPANDED % "1,1,0,1", "Relu Add Neg"),
    Case("mask-constant", EXPANDED % "1,1,1,1", "Relu Neg", note="of zeros"),
    Case("resize-as-tile", UP % (15, 3, ""), "Reshape Tile Reshape"),
    Case("resize-as-tile", DOUBLE, "Reshape Tile Reshape", note="floored"),
    Case("resize-from-tile", TILED, "Resize"),
    Case("resize-as-depth-to-space", DOUBLE, "Concat DepthToSpace"),
    Case("resize-as-conv", UP % (15, 3, FLOOR), "ConvTranspose"),
    Case("resize-by-scales", SIZED, "Resize"),
    Case(
        "softmax-on-last-axis",
        "(float[n,5,4] x) => (float[n,5,4] y) { y = Softmax <axis=1> (x) }",
        "Transpose Softmax Transpose",
    ),
    Case(
        "softmax-open",
        "(float[n,5,4] x) => (float[n,5,4] y) { y = Softmax (x) }",
        "ReduceMax Sub Exp ReduceSum Div",
    ),
    Case("softmax-closed", SOFTMAX_OPEN, "Softmax"),
    Case(
        "einsum-as-matmul",
        EINSUM % ("2,5,4", "2,6,4", "2,5,6", "bhqd,bhkd->bhqk"),
        "Transpose MatMul",
    ),
    Case(
        "einsum-as-matmul",
        EINSUM % ("5,4", "4,6", "6,5", "bqd,bdk->bkq"),
        "MatMul Transpose",
        note="turned",
    ),
    Case(
        "einsum-as-matmul",
        """(float[n,5,4] a) => (float[n,5,6] y) <float[6,4] w> {
            y = Einsum <equation="bqd,kd->bqk"> (a, w) }""",
        "MatMul",
        note="constant",
    ),
    Case(
        "einsum-as-transpose",
        '(float[n,5,4] a) => (float[4,n,5] y) { y = Einsum <equation="abc->cab"> (a) }',
        "Transpose",
    ),
    Case("conv-split", PARTS, "Conv Conv"),
    Case("grouped-from-convs", APART, "Conv"),
    Case("pointwise-as-matmul", POINTWISE, "Reshape MatMul Add Reshape"),
    Case("pointwise-from-matmul", COLUMNS, "Conv"),
    Case("image-to-word", POINTWISE.replace("n,4,6,6", "n,3,6,6").replace("8,4,1", "8,3,1"),
         "Pad Conv"),
    Case("batchnorm-through-add", SUMMED, "Conv Conv BatchNormalization BatchNormalization Add"),
    Case("gelu-tanh-closed", TANH, "Gelu", opset=20),
    Case("gelu-tanh-contrib", TANH, "FastGelu"),
    Case("gelu-tanh-as-sigmoid", FAST, "Mul Mul Add Mul Sigmoid Mul", opset=20),
    Case("gelu-tanh-open", FAST, OPENED, opset=20),
    Case("quick-gelu-contrib", QUICK, "QuickGelu"),
    Case("qlinearconv-channels-last", QLINEAR, "Transpose QLinearConv Transpose"),
]  # fmt: skip

REFUSALS = [
    ("attention-closed", OPEN, "needs opset 23"),
    ("attention-closed", OPEN.replace("axis=-1", "axis=1"), "not over the last axis"),
    (
        "attention-multihead",
        LAYERS.replace("float[n,1,5,5] mask", "float[n,1,1,5] mask"),
        "as long and wide as the scores",
    ),
    ("attention-packed", LAYERS.replace("MatMul (x, wk)", "MatMul (h, wk)").replace(
        "mq = ", "h = Relu (x) mq = "), "not linear layers of one input"),
    ("resize-as-tile", UP % (10, 2, ', coordinate_transformation_mode="asymmetric"'), "rounded"),
    ("resize-as-depth-to-space", UP % (15, 3, FLOOR), "factors differ"),
    ("resize-as-conv", (UP % (10, 2, FLOOR)).replace("1,1,2,2", "1,1,2,2.2").replace(
        "8,10]", "8,11]"), "not whole"),
    ("einsum-as-matmul", EINSUM % ("5,4", "6,4", "5,4", "bqd,bkd->bqd"), "more or less than one"),
    ("einsum-as-matmul", EINSUM % ("5,4", "4,6", "5,6", "b...d,bdk->b...k"), "has dots"),
    ("conv-split", PARTS.replace("float[n,5,4,4] b)", "float[n,5,4,4] b, float[n,8,4,4] c)"),
     "read elsewhere"),
    ("grouped-from-convs", APART.replace("Conv (q, u)", "Conv <strides=[1,1], pads=[0,0,0,0],"
     " dilations=[1,1]> (q, u)").replace("Concat <axis=1> (a, b)", "Concat <axis=1> (b, a)"),
     "in order"),
    ("pointwise-as-matmul", POINTWISE.replace("Conv (x", "Conv <strides=[2,2]> (x").replace(
        "8,6,6", "8,3,3"), "has a stride"),
    ("batchnorm-through-add", SUMMED.replace("b = Conv (x, v)", "c = Conv (x, v) b = Relu (c)"),
     "not a convolution"),
    ("softmax-closed", SOFTMAX_OPEN.replace("ReduceMax (x, one)", "ReduceMax (x, two)").replace(
        "one = {1}", "one = {1}, int64[1] two = {2}"), "same one axis"),
]  # fmt: skip
