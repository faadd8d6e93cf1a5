/**
 * The operations of ops.js as a backend of refbert, over its wire protocol (docs/wire-protocol.md):
 *
 *     refbert run --backend "exec:node examples/refbert-js/main.js" "Paris is the [MASK] of France."
 *
 * refbert asks, this answers, one request after the other, until the connection is closed. What is no message of the
 * protocol ends it with one line and status 1; what makes no sense in a message is an answer.
 */

import { readSync, writeSync } from "node:fs";
import * as ops from "./ops.js";
import * as optional from "./optional.js";

const { need } = ops;
const [INCOMING, OUTGOING] = (process.env.REFBERT_WIRE ?? "0,1").split(",").map(Number);

const OFFERS = [
  "add", "reshape", "transpose", "embedding", "gather", "linear", "layer_norm", "gelu", "relu", "tanh", "softmax",
  "attention_probabilities", "attention", "dropout", "cross_entropy", "mean_squared_error", ...Object.keys(optional),
];
const OPERATIONS = { ...ops, ...optional };
const SELF = {
  wire: 1, contract: 1, name: "refbert-js", library: `JavaScript, Node ${process.versions.node}`, device: "cpu",
  dtypes: ["float32"], offers: ["asarray", "to_numpy", ...OFFERS], extensions: ["lists"],
};

// ---- messages ---------------------------------------------------------------------------------------------------

const MAGIC = "refbert1", PREFIX = 24, LONGEST_HEADER = 1 << 24, AT_ONCE = 1 << 30;
// By dtype: the type of its entries in memory, and what makes numbers of them where they are none.
const DTYPES = {
  __proto__: null,
  bool: [Uint8Array], int8: [Int8Array], int16: [Int16Array], int32: [Int32Array], uint8: [Uint8Array],
  uint16: [Uint16Array], uint32: [Uint32Array], float32: [Float32Array], float64: [Float64Array],
  int64: [BigInt64Array, (n) => Float64Array.from(n, fromBig)],
  uint64: [BigUint64Array, (n) => Float64Array.from(n, fromBig)],
  float16: [Uint16Array, (bits) => new Float32Array(bits).map((n) => HALVES[n])],
};

/** To a number. Above 2⁵³ its last bit stands for all that is lost, so that rounding to float32 later is to nearest. */
function fromBig(n) {
  return Number.isSafeInteger(Number(n)) ? Number(n) : 2048 * Number((n >> 11n) | (n & 2047n ? 1n : 0n));
}

// Every float16 by its bits: sign, 5 of exponent, 10 of fraction.
const HALVES = new Float32Array(1 << 16).map((_, bits) => {
  const exponent = (bits >> 10) & 31, fraction = bits & 1023, sign = bits >> 15 ? -1 : 1;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + fraction) * 2 ** (exponent - 25) : fraction * 2 ** -24);
});

const padded = (bytes) => Math.ceil(bytes / 8) * 8;

/** What arrives is no message, or nobody is there to hear the answer. */
function end(why) {
  if (why) console.error(`refbert-js: ${why}`);
  process.exit(why ? 1 : 0);
}

/** Do it again until a descriptor that does not block is ready. */
function waiting(call) {
  for (;;) {
    try {
      return call();
    } catch (error) {
      if (error.code === "EPIPE") end();
      if (error.code !== "EAGAIN") end(`the connection is broken: ${error.message}`);
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1); // a millisecond
    }
  }
}

function bytesOf(count) {
  try {
    return new Uint8Array(count);
  } catch {
    return end(`there is no memory for a tensor of ${count} bytes`);
  }
}

function read(count, what) {
  const into = bytesOf(count);
  for (let done = 0; done < count;) {
    const got = waiting(() => readSync(INCOMING, into, done, Math.min(count - done, AT_ONCE), null));
    if (got === 0 && what === "prefix" && done === 0) end();
    if (got === 0) end(`a message ends after ${done} of ${count} bytes of its ${what}`);
    done += got;
  }
  return into;
}

function write(bytes) {
  for (let done = 0; done < bytes.length;) {
    done += waiting(() => writeSync(OUTGOING, bytes, done, Math.min(bytes.length - done, AT_ONCE)));
  }
}

/** The next message: its header, and its tensors as arrays. */
function receive() {
  const prefix = read(PREFIX, "prefix"), magic = Buffer.from(prefix.buffer, 0, 8).toString("latin1");
  if (magic !== MAGIC) end(`a message begins with ${JSON.stringify(magic)}, not with "${MAGIC}"`);
  const [h, p] = Array.from(new BigUint64Array(prefix.buffer, 8), Number);
  if (h > LONGEST_HEADER) end(`a header of ${h} bytes is longer than there can be`);
  const header = parsed(read(h, "header"));
  const kinds = header.tensors ?? [];
  if (!Array.isArray(kinds) || !kinds.every(isTensor)) end('"tensors" is no list of dtypes and shapes');
  const lengths = kinds.map((one) => DTYPES[one.dtype][0].BYTES_PER_ELEMENT * ops.size(one.shape));
  const due = lengths.reduce((sum, n) => sum + padded(n), 0);
  if (due !== p) end(`a payload has ${p} bytes, its tensors have ${due}`);
  const tensors = kinds.map(({ dtype, shape }, i) => {
    const [Type, made = (n) => n] = DTYPES[dtype];
    return { shape, data: made(new Type(read(padded(lengths[i]), "payload").buffer, 0, ops.size(shape))) };
  });
  return [header, tensors];
}

function parsed(bytes) {
  try {
    const header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
    if (header !== null && typeof header === "object" && !Array.isArray(header)) return header;
  } catch { /* said below */ }
  return end("a header is not a JSON object");
}

function isTensor(one) {
  return one?.dtype in DTYPES && Array.isArray(one.shape) && one.shape.every((n) => Number.isSafeInteger(n) && n >= 0);
}

function send(answer, tensors) {
  if (tensors.length) answer.tensors = tensors.map(({ shape }) => ({ dtype: "float32", shape }));
  const header = Buffer.from(JSON.stringify(answer));
  const data = tensors.flatMap(({ data }) => [
    Buffer.from(data.buffer, data.byteOffset, data.byteLength), Buffer.alloc(padded(data.byteLength) - data.byteLength),
  ]);
  const prefix = Buffer.alloc(PREFIX);
  prefix.write(MAGIC, "latin1");
  prefix.writeBigUInt64LE(BigInt(header.length), 8);
  prefix.writeBigUInt64LE(BigInt(data.reduce((sum, one) => sum + one.length, 0)), 16);
  write(Buffer.concat([prefix, header]));
  data.forEach(write);
}

// ---- values -----------------------------------------------------------------------------------------------------

const FLOATS = { __proto__: null, inf: Infinity, "-inf": -Infinity, nan: NaN };

// Arrays and pullbacks by number.
const things = new Map();
let count = 0;

function number(thing) {
  things.set(++count, thing);
  return count;
}

function known(n, type) {
  const thing = things.get(n);
  need(typeof thing === type, `there is no ${type === "object" ? "array" : "pullback"} ${n}`);
  return thing;
}

/** What a value of a request stands for. */
function decoded(value, tensors) {
  if (typeof value === "string") return FLOATS[value] ?? value;
  if (Array.isArray(value)) return value.map((one) => decoded(one, tensors));
  if (value === null || typeof value !== "object") return value;
  if ("array" in value) return known(value.array, "object");
  if ("list" in value) return decoded(value.list, tensors);
  if (!("tensor" in value)) return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, decoded(v, tensors)]));
  need(tensors[value.tensor]?.data, `there is no tensor ${value.tensor}`);
  return tensors[value.tensor];
}

/** A result as a value of an answer. */
function encoded(result) {
  if (Array.isArray(result)) return result.map(encoded);
  if (typeof result === "function") return { pullback: number(result) };
  if (typeof result === "object") return { array: number(result), shape: result.shape };
  return Number.isFinite(result) ? result : { Infinity: "inf", "-Infinity": "-inf", NaN: "nan" }[result];
}

const each = (value, f) => (Array.isArray(value) ? value.map(f) : f(value));

// ---- requests ---------------------------------------------------------------------------------------------------

const REQUESTS = {
  __proto__: null,
  hello({ wire }) {
    need(wire?.includes?.(1), `refbert-js speaks wire protocol 1, not ${wire}`, "unsupported");
    return SELF;
  },
  open({ dtype, device }) {
    need([null, undefined, "float32"].includes(dtype), `refbert-js computes in float32, not ${dtype}`, "unsupported");
    need([null, undefined, "cpu"].includes(device), `refbert-js computes on the cpu, not on ${device}`, "unavailable");
    return { instance: 1, dtype: "float32" };
  },
  put({ value }, tensors) {
    return { result: encoded(each(decoded(value, tensors), ({ shape, data }) => ops.asarray(shape, data))) };
  },
  get({ value }, tensors, out) {
    const result = each(decoded(value, tensors), (array) => {
      need(array.data instanceof Float32Array, "what to get is no array");
      return { tensor: out.push(array) - 1 };
    });
    return { result };
  },
  call({ op, args = [], options = {} }, tensors) {
    need(OFFERS.includes(op), `there is no operation ${op}`, "unsupported");
    return { result: encoded(OPERATIONS[op](...decoded(args, tensors), decoded(options, tensors))) };
  },
  pull({ pullback, args }, tensors) {
    return { result: encoded(known(pullback, "function")(...decoded(args, tensors))) };
  },
};

function answer(header, tensors, out) {
  try {
    for (const n of header.free ?? []) things.delete(n);
    need(header.do in REQUESTS, `there is no request ${header.do}`);
    return { id: header.id, ok: REQUESTS[header.do](header, tensors, out) };
  } catch (error) {
    // Arguments of another kind than an operation takes show as a TypeError.
    const kind = error.kind ?? (error instanceof TypeError ? "invalid" : "failed");
    return { id: header.id, error: { kind, type: error.name, message: error.message } };
  }
}

for (;;) {
  const [header, tensors] = receive(), out = [];
  send(answer(header, tensors, out), out);
}
