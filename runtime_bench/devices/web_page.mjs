// Runs models for the other side of a loopback connection: in a page of a browser, or in Node.
const inNode = typeof document === "undefined";
const base = inNode ? process.argv[2] : location.href.split("?")[0];
const provider = inNode ? "cpu" : new URLSearchParams(location.search).get("provider");
const library = inNode ? process.argv[3] : provider === "webgpu" ? "./ort/ort.webgpu.min.mjs" : "./ort/ort.wasm.min.mjs";
const loaded = await import(library), ort = inNode ? loaded.default : loaded;
if (!inNode) ort.env.wasm.wasmPaths = new URL("./ort/", base).href;
ort.env.logLevel = "error";
const TYPES = {
  float32: Float32Array, float64: Float64Array, int8: Int8Array, uint8: Uint8Array, bool: Uint8Array,
  int16: Int16Array, uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array,
  int64: BigInt64Array, uint64: BigUint64Array, float16: globalThis.Float16Array ?? Uint16Array,
};
let session = null, feeds = {};

const bytes = async (name) => (await fetch(`${base}files/${name}`)).arrayBuffer();
const base64 = (view) => {
  let text = "";
  const all = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
  for (let i = 0; i < all.length; i += 32768) text += String.fromCharCode(...all.subarray(i, i + 32768));
  return btoa(text);
};
const tasks = {
  async load({ model, threads, level }) {
    if (session) await session.release();
    session = null;
    if (!inNode) ort.env.wasm.numThreads = threads;
    const options = { executionProviders: [provider], graphOptimizationLevel: level };
    if (inNode) options.intraOpNumThreads = threads;
    const data = await bytes(model), start = performance.now();
    session = await ort.InferenceSession.create(data, options);
    return { ns: (performance.now() - start) * 1e6, threads };
  },
  async feed({ tensors }) {
    feeds = {};
    for (const t of tensors) feeds[t.name] = new ort.Tensor(t.type, new TYPES[t.type](await bytes(t.file)), t.shape);
    return {};
  },
  async time({ runs }) {
    const ns = [];
    for (let i = 0; i < runs; i++) {
      const start = performance.now();
      await session.run(feeds);
      ns.push(Math.max(1, Math.round((performance.now() - start) * 1e6)));
    }
    return { ns };
  },
  async place({ model }) { // on which provider each node is, by onnxruntime's own log
    const lines = [], kept = {};
    for (const kind of ["log", "info", "debug", "warn", "error"]) {
      kept[kind] = console[kind];
      console[kind] = (...words) => {
        const line = words.join(" ");
        if (line.includes("VerifyEachNodeIsAssignedToAnEp")) lines.push(line);
      };
    }
    ort.env.logLevel = "verbose";
    try {
      const options = { executionProviders: [provider], graphOptimizationLevel: "basic", logSeverityLevel: 0 };
      await (await ort.InferenceSession.create(await bytes(model), options)).release();
    } finally {
      Object.assign(console, kept);
    }
    return { lines };
  },
  async outputs() {
    const found = await session.run(feeds);
    return { outputs: Object.entries(found).map(([name, t]) => ({ name, type: t.type, shape: t.dims, data: base64(t.data) })) };
  },
};

(async () => { // its end tells the other side that this page has died
  const reader = (await fetch(`${base}alive`)).body.getReader();
  while (!(await reader.read()).done);
})();
for (;;) {
  const message = await (await fetch(`${base}next`)).json();
  if (message.do === "wait") continue;
  let answer;
  try {
    answer = await tasks[message.do](message);
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  await fetch(`${base}answer`, { method: "POST", body: JSON.stringify(answer) });
}
