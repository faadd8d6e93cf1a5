/** What contract 1 leaves to a backend, made of the operations: a layer at once for inference, and optimizers. */

import { add, alike, asarray, attention, gelu, layer_norm, linear, need, relu, said, tanh, zeros } from "./ops.js";

const ACTIVATIONS = {
  __proto__: null,
  gelu_erf: (x) => gelu(x, { form: "erf" })[0],
  gelu_tanh: (x) => gelu(x, { form: "tanh" })[0],
  relu: (x) => relu(x)[0],
  tanh: (x) => tanh(x)[0],
  linear: (x) => x,
};

/** A whole encoder layer, [B, S, H] -> [B, S, H], as refbert/spec/encoder.py composes it; params by local name. */
export function encoder_layer(x, params, { mask, heads, mask_value, activation, eps }) {
  need(activation in ACTIVATIONS, `there is no activation "${activation}"`);
  const p = (name) => {
    need(name in params, `the layer lacks ${name}`);
    return params[name];
  };
  const dense = (name, z) => linear(z, p(`${name}.weight`), p(`${name}.bias`))[0];
  const add_and_norm = (name, z, o) => layer_norm(add(z, o)[0], p(`${name}.weight`), p(`${name}.bias`), { eps })[0];
  const [q, k, v] = ["query", "key", "value"].map((name) => dense(`attention.self.${name}`, x));
  const [a] = attention(q, k, v, { mask, heads, mask_value });
  const attended = add_and_norm("attention.output.LayerNorm", x, dense("attention.output.dense", a));
  const g = ACTIVATIONS[activation](dense("intermediate.dense", attended));
  return add_and_norm("output.LayerNorm", attended, dense("output.dense", g));
}

/** The same over sequences end to end: x [N, H], lengths [B] with sum N -> [N, H]. */
export function packed_encoder_layer(x, params, { lengths, heads, activation, eps }) {
  const [N, H] = x.shape, y = zeros(x.shape);
  const total = lengths.data.reduce((sum, length) => sum + length, 0);
  need(x.shape.length === 2 && total === N, `lengths of ${total} tokens do not fit x [${x.shape}]`);
  let from = 0;
  for (const S of lengths.data) {
    const own = { shape: [1, S, H], data: x.data.subarray(from * H, (from + S) * H) };
    const mask = { shape: [1, S], data: new Uint8Array(S).fill(1) };
    y.data.set(encoder_layer(own, params, { mask, heads, mask_value: -Infinity, activation, eps }).data, from * H);
    from += S;
  }
  return y;
}

// The optimizers of refbert/ops: whether the moments' bias is corrected, and whether a step is as long as the weights.
const RULES = {
  __proto__: null,
  bert_adam: { corrected: false, trusted: false },
  adamw: { corrected: true, trusted: false },
  lamb: { corrected: true, trusted: true },
};

const norm = (numbers) => Math.sqrt(numbers.reduce((sum, n) => sum + n * n, 0));

/** New p, m, v for the gradient g·scale. Nothing is written into. */
export function update(rule, p, g, m, v, { scale, lr, beta1, beta2, eps, weight_decay, step }) {
  need(rule in RULES, `there is no rule "${rule}"`, "unsupported");
  const { corrected, trusted } = RULES[rule];
  need(!corrected || step >= 1, `step counts from 1, got ${step}`);
  need([g, m, v].every((x) => alike(x, p)), `update needs equal shapes, got ${said(p, g, m, v)}`);
  const [first, second] = [beta1, beta2].map((beta) => (corrected ? 1 - beta ** step : 1));
  const [P, G, M, V] = [p, g, m, v].map(({ data }) => Float64Array.from(data));
  G.forEach((gradient, i) => {
    M[i] = beta1 * M[i] + (1 - beta1) * gradient * scale;
    V[i] = beta2 * V[i] + (1 - beta2) * (gradient * scale) ** 2;
  });
  const u = P.map((weight, i) => M[i] / first / (Math.sqrt(V[i] / second) + eps) + weight_decay * weight);
  const lengths = [norm(P), norm(u)];
  const ratio = trusted && lengths.every((n) => n > 0) ? lengths[0] / lengths[1] : 1;
  return [P.map((weight, i) => weight - lr * ratio * u[i]), M, V].map((numbers) => asarray(p.shape, numbers));
}

/** √ of the sum of the squares of all entries of all arrays; a number. */
export function global_norm(gradients) {
  return norm(Object.values(gradients).map(({ data }) => norm(Float64Array.from(data))));
}
