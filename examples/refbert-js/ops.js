/**
 * The operations of BERT, forward and backward, in float32: contract 1 of refbert, in the language alone. This file
 * runs in Node, in a browser and in a worker.
 *
 * An array is `{ shape, data }`: a list of sizes, and a typed array in row-major order, a Float32Array where it holds
 * what an operation has computed. Nothing writes into an array once it is made, so results may share memory. Ids,
 * labels, masks and targets are such arrays too, of any type; a mask says no with 0 and yes with any other number.
 *
 * Every operation gives `[y, pullback]`. `pullback(dy)` gives one cotangent for each array among the arguments, in
 * their order, and may be called again. Numbers in JavaScript have 64 bits: sums are made of those, and only what is
 * stored is rounded to 32. The derivations of the gradients are in refbert/ops, one file for each operation.
 */

/** The label that does not count. */
export const IGNORE = -100;

/** How many entries a shape has. */
export const size = (shape) => shape.reduce((product, n) => product * n, 1);

/** An array of zeros. */
export const zeros = (shape) => ({ shape, data: new Float32Array(size(shape)) });

/** An array of numbers of any type, rounded to nearest, ties to even. */
export const asarray = (shape, numbers) => ({ shape, data: new Float32Array(numbers) });

/** Refuse what does not hold by an error whose `kind` is "invalid", "out of range" or "unsupported". */
export function need(holds, message, kind = "invalid") {
  if (!holds) throw Object.assign(new Error(message), { kind });
}

/** Whether two arrays have the same shape. */
export const alike = (x, z) => x.shape.length === z.shape.length && x.shape.every((n, i) => n === z.shape[i]);
export const said = (...arrays) => arrays.map((x) => `[${x.shape}]`).join(" and ");

/** [y, pullback], where pullback is handed a cotangent of y's shape only. */
function differentiable(y, pullback) {
  return [y, (dy) => {
    need(alike(dy, y), `the cotangent must have the result's shape, got ${said(dy, y)}`);
    return pullback(dy);
  }];
}

/** [..., n] as rows of n: how many there are, and n. */
function rowsOf(x) {
  need(x.shape.length > 0, "an array without axes has no rows");
  return [size(x.shape.slice(0, -1)), x.shape.at(-1)];
}

/** Row i of rows of n entries, in the same memory. */
const row = (data, i, n) => data.subarray(i * n, i * n + n);

/** An array of the same shape, entry i being f(x's entry i, i). */
const each = (x, f) => ({ shape: x.shape, data: x.data.map(f) });

// ---- matrix products --------------------------------------------------------------------------------------------
/** The rows of a matrix in a typed array: the first begins at `at`, the next one `row` further. */
const matrix = (data, at, row) => ({ data, at, row });

/**
 * out[i, j] = Σ_k a[i, k] b[j, k] + bias[j]: a bᵀ, both read along their rows. All products here are of this form.
 *
 * Two rows of a meet four rows of b at a time, so that each number loaded is used several times. At an edge the last
 * row stands in for those that are not there; what it gives is written to its own place once more.
 */
function product(out, a, b, rows, columns, inner, bias = null) {
  const A = a.data, B = b.data;
  for (let j0 = 0; j0 < columns; j0 += 4) {
    const j = [0, 1, 2, 3].map((n) => Math.min(j0 + n, columns - 1));
    const [b0, b1, b2, b3] = j.map((n) => b.at + n * b.row);
    const [c0, c1, c2, c3] = j.map((n) => (bias ? bias[n] : 0));
    for (let i0 = 0; i0 < rows; i0 += 2) {
      const i1 = Math.min(i0 + 1, rows - 1);
      const a0 = a.at + i0 * a.row, a1 = a.at + i1 * a.row;
      let s00 = 0, s01 = 0, s02 = 0, s03 = 0, s10 = 0, s11 = 0, s12 = 0, s13 = 0;
      for (let k = 0; k < inner; k++) {
        const x0 = A[a0 + k], x1 = A[a1 + k];
        const w0 = B[b0 + k], w1 = B[b1 + k], w2 = B[b2 + k], w3 = B[b3 + k];
        s00 += x0 * w0; s01 += x0 * w1; s02 += x0 * w2; s03 += x0 * w3;
        s10 += x1 * w0; s11 += x1 * w1; s12 += x1 * w2; s13 += x1 * w3;
      }
      const y = out.data, y0 = out.at + i0 * out.row, y1 = out.at + i1 * out.row;
      y[y0 + j[0]] = s00 + c0; y[y0 + j[1]] = s01 + c1; y[y0 + j[2]] = s02 + c2; y[y0 + j[3]] = s03 + c3;
      y[y1 + j[0]] = s10 + c0; y[y1 + j[1]] = s11 + c1; y[y1 + j[2]] = s12 + c2; y[y1 + j[3]] = s13 + c3;
    }
  }
}

/** The transpose of a matrix [rows, columns], in memory of its own. */
function transposed(a, rows, columns) {
  const data = new Float32Array(rows * columns);
  for (let i = 0; i < rows; i++) {
    for (let j = 0, from = a.at + i * a.row; j < columns; j++) data[j * rows + i] = a.data[from + j];
  }
  return matrix(data, 0, rows);
}

// ---- entries and their places -----------------------------------------------------------------------------------
/** y = x + z, of the same shape. */
export function add(x, z) {
  need(alike(x, z), `add needs equal shapes, got ${said(x, z)}`);
  return differentiable(each(x, (v, i) => v + z.data[i]), (dy) => [dy, dy]);
}

/** The same entries in another shape, row-major order kept. */
export function reshape(x, shape) {
  need(Array.isArray(shape) && shape.every((n) => Number.isInteger(n) && n >= 0), `[${shape}] is no shape`);
  need(size(shape) === x.data.length, `[${x.shape}] does not have as many entries as [${shape}]`);
  return differentiable({ shape, data: x.data }, (dy) => [{ shape: x.shape, data: dy.data }]);
}

/** Axis i of y is axis axes[i] of x. */
export function transpose(x, axes) {
  const places = x.shape.map((_, i) => axes.indexOf(i));
  need(axes.length === places.length && !places.includes(-1), `[${axes}] are not the axes of [${x.shape}] in an order`);
  return differentiable(permuted(x, axes), (dy) => [permuted(dy, places)]);
}

function permuted(x, axes) {
  const y = zeros(axes.map((axis) => x.shape[axis]));
  const steps = axes.map((axis) => size(x.shape.slice(axis + 1)));
  for (let i = 0; i < y.data.length; i++) {
    let from = 0;
    for (let k = axes.length - 1, rest = i; k >= 0; k--) {
      from += (rest % y.shape[k]) * steps[k];
      rest = Math.floor(rest / y.shape[k]);
    }
    y.data[i] = x.data[from];
  }
  return y;
}

function checkRange(numbers, end, name) {
  const outside = numbers.find((n) => !(Number.isInteger(n) && n >= 0 && n < end));
  need(outside === undefined, `${name} must be in [0, ${end}), got ${outside}`, "out of range");
}

/** Rows by their numbers. The gradient of a row is the sum over all the places where it was taken. */
function take(x, { shape, data: numbers }, name) {
  const [M, H] = rowsOf(x), y = zeros([...shape, H]);
  checkRange(numbers, M, name);
  numbers.forEach((i, n) => y.data.set(row(x.data, i, H), n * H));
  return differentiable(y, (dy) => {
    const dx = zeros(x.shape), sums = new Map();
    numbers.forEach((i, n) => {
      if (!sums.has(i)) sums.set(i, new Float64Array(H));
      const sum = sums.get(i);
      for (let h = 0; h < H; h++) sum[h] += dy.data[n * H + h];
    });
    sums.forEach((sum, i) => dx.data.set(sum, i * H));
    return [dx];
  });
}

/** y = table[ids]: table [V, H], ids [...] -> [..., H]. */
export const embedding = (table, ids) => take(table, ids, "ids");

/** y = x[positions], where x [..., H] is seen as rows of H: positions [P] -> [P, H]. */
export const gather = (x, positions) => take(x, positions, "positions");

// ---- layers -----------------------------------------------------------------------------------------------------
/** y = x wᵀ + b: x [..., I], w [O, I], b [O] -> [..., O]. */
export function linear(x, w, b) {
  const [N, I] = rowsOf(x), O = b.shape[0];
  need(w.shape.length === 2 && b.shape.length === 1 && w.shape[0] === O && w.shape[1] === I,
    `linear needs x [..., I], w [O, I], b [O], got ${said(x, w, b)}`);
  const X = matrix(x.data, 0, I), W = matrix(w.data, 0, I), y = zeros([...x.shape.slice(0, -1), O]);
  product(matrix(y.data, 0, O), X, W, N, O, I, b.data);
  return differentiable(y, (dy) => {
    const dx = zeros(x.shape), dw = zeros(w.shape), sums = new Float64Array(O), dY = matrix(dy.data, 0, O);
    product(matrix(dx.data, 0, I), dY, transposed(W, O, I), N, I, O);
    product(matrix(dw.data, 0, I), transposed(dY, N, O), transposed(X, N, I), O, I, N);
    dy.data.forEach((d, i) => { sums[i % O] += d; });
    return [dx, dw, asarray(b.shape, sums)];
  });
}

/** y = gamma (x − mean)/√(variance + eps) + beta over the last axis. */
export function layer_norm(x, gamma, beta, { eps }) {
  const [N, H] = rowsOf(x);
  need(alike(gamma, { shape: [H] }) && alike(beta, gamma),
    `layer_norm needs x [..., H], gamma [H], beta [H], got ${said(x, gamma, beta)}`);
  const y = zeros(x.shape), xhat = new Float64Array(N * H), r = new Float64Array(N);
  for (let n = 0; n < N; n++) {
    let sum = 0, squares = 0;
    for (let i = n * H; i < n * H + H; i++) sum += x.data[i];
    for (let i = n * H; i < n * H + H; i++) squares += (x.data[i] - sum / H) ** 2;
    r[n] = 1 / Math.sqrt(squares / H + eps);
    for (let h = 0, i = n * H; h < H; h++, i++) {
      xhat[i] = (x.data[i] - sum / H) * r[n];
      y.data[i] = gamma.data[h] * xhat[i] + beta.data[h];
    }
  }
  return differentiable(y, (dy) => {
    const dx = zeros(x.shape), dgamma = new Float64Array(H), dbeta = new Float64Array(H);
    for (let n = 0; n < N; n++) {
      let q = 0, qx = 0; // the sums of dy gamma and of dy gamma x̂
      for (let h = 0, i = n * H; h < H; h++, i++) {
        dgamma[h] += dy.data[i] * xhat[i];
        dbeta[h] += dy.data[i];
        q += dy.data[i] * gamma.data[h];
        qx += dy.data[i] * gamma.data[h] * xhat[i];
      }
      for (let h = 0, i = n * H; h < H; h++, i++) {
        dx.data[i] = r[n] * (dy.data[i] * gamma.data[h] - q / H - xhat[i] * (qx / H));
      }
    }
    return [dx, asarray(gamma.shape, dgamma), asarray(beta.shape, dbeta)];
  });
}

/** y = x keep/(1 − rate). A dropped NaN stays NaN: it says that something has gone wrong. */
export function dropout(x, { keep, rate }) {
  need(rate >= 0 && rate < 1, `dropout rate must be in [0, 1), got ${rate}`);
  need(alike(x, keep), `the keep mask must have the shape of x, got ${said(keep, x)}`);
  const kept = (z) => each(z, (v, i) => v * (keep.data[i] ? 1 / (1 - rate) : 0));
  return differentiable(kept(x), (dy) => [kept(dy)]);
}

// ---- activations ------------------------------------------------------------------------------------------------
/** y = value(x), entry by entry, with the derivative slope(x). */
const elementwise = (x, value, slope) =>
  differentiable(each(x, value), (dy) => [each(dy, (d, i) => d * slope(x.data[i]))]);

/** y = max(0, x); the derivative at 0 is 0. */
export const relu = (x) => elementwise(x, (v) => Math.max(v, 0), (v) => Number(v > 0));

/** y = tanh x. */
export const tanh = (x) => elementwise(x, Math.tanh, (v) => (1 - Math.tanh(v)) * (1 + Math.tanh(v)));

/** y = x Φ(x), form "erf", or its approximation by tanh, form "tanh". */
export function gelu(x, { form }) {
  need(form in GELU, `gelu has the forms ${Object.keys(GELU).join(" and ")}, not "${form}"`);
  return elementwise(x, ...GELU[form]);
}

/** φ(x) = e^{−x²/2}/√(2π), the normal density. */
const density = (x) => Math.exp(-0.5 * x * x) / Math.sqrt(2 * Math.PI);

/**
 * Φ(x) = ∫ φ up to x = ½ (1 + erf(x/√2)), the normal distribution, which JavaScript does not have. Accurate to 10⁻¹²
 * of itself for every x, however small Φ is.
 *
 * Near 0: S = (Φ − ½)/φ has S′ = 1 + x S, because φ′ = −x φ, and S(0) = 0. A power series Σ s_n x^{2n+1} solves this if
 * s_0 = 1 and (2n + 1) s_n = s_{n−1}. All its terms have x's sign, so nothing cancels.
 *
 * Far out: R = (1 − Φ)/φ has R′ = x R − 1, and differentiating n times more, R⁽ⁿ⁺¹⁾ = x R⁽ⁿ⁾ + n R⁽ⁿ⁻¹⁾. Divided by
 * R⁽ⁿ⁾ this says −R⁽ⁿ⁾/R⁽ⁿ⁻¹⁾ = n/(x − R⁽ⁿ⁺¹⁾/R⁽ⁿ⁾): one step of a continued fraction (Laplace's),
 * R = 1/(x + 1/(x + 2/(x + 3/(x + …)))), of which 300/x² + 10 steps are enough from x = 3 on.
 */
export function distribution(x) {
  const far = Math.abs(x);
  if (far < 3) {
    let sum = x;
    for (let n = 3, term = x; Math.abs(term) > 1e-17 * Math.abs(sum); n += 2) {
      term *= (x * x) / n;
      sum += term;
    }
    return 0.5 + density(x) * sum;
  }
  let below = far;
  for (let n = Math.ceil(300 / (x * x) + 10); n > 0; n--) below = far + n / below;
  const tail = density(x) / below;
  return x > 0 ? 1 - tail : tail;
}

const LINEAR = Math.sqrt(2 / Math.PI), CUBIC = 0.044715;
/** ½ (1 + tanh u) for u = √(2/π) (x + 0.044715 x³), as 1/(1 + e^{−2u}), in which nothing cancels. */
const approximation = (x) => 1 / (1 + Math.exp(-2 * LINEAR * (x + CUBIC * x * x * x)));
// By form: the value, and its derivative. 1 − approximation(x) is approximation(−x).
const GELU = {
  __proto__: null,
  erf: [(x) => x * distribution(x), (x) => distribution(x) + x * density(x)],
  tanh: [
    (x) => x * approximation(x),
    (x) => approximation(x) * (1 + 2 * x * approximation(-x) * LINEAR * (1 + 3 * CUBIC * x * x)),
  ],
};

// ---- softmax and attention --------------------------------------------------------------------------------------
/** p = e^x / Σ e^x of a row, from its largest entry so that nothing overflows. Gives log Σ e^x. */
function softmaxOf(x, p) {
  let max = -Infinity, sum = 0;
  for (let i = 0; i < x.length; i++) if (x[i] > max) max = x[i];
  for (let i = 0; i < x.length; i++) sum += p[i] = Math.exp(x[i] - max); // NaN if an entry is
  for (let i = 0; i < x.length; i++) p[i] /= sum;
  return max + Math.log(sum);
}

/** p = e^x / Σ e^x over the last axis. */
export function softmax(x) {
  const [N, n] = rowsOf(x), p = zeros(x.shape);
  for (let i = 0; i < N; i++) softmaxOf(row(x.data, i, n), row(p.data, i, n));
  return differentiable(p, (dp) => {
    const dx = zeros(p.shape);
    for (let i = 0; i < N; i++) {
      let t = 0;
      for (let j = i * n; j < i * n + n; j++) t += p.data[j] * dp.data[j];
      for (let j = i * n; j < i * n + n; j++) dx.data[j] = p.data[j] * (dp.data[j] - t);
    }
    return [dx];
  });
}

/** Sizes, and `everyHead(f)`: f(where the rows of a head begin in [B, S, H], and where in [B, A, S, S], b) for all. */
function headsOf(arrays, mask, heads) {
  const [B, S, H] = arrays[0].shape;
  need(H !== undefined && arrays.every((x) => alike(x, arrays[0])),
    `attention needs arrays [B, S, H] of one shape, got ${said(...arrays)}`);
  need(Number.isInteger(heads) && heads > 0 && H % heads === 0, `${H} features do not divide into ${heads} heads`);
  need(alike(mask, { shape: [B, S] }), `the mask must be [${B},${S}], got [${mask.shape}]`);
  const D = H / heads;
  return { B, S, H, D, everyHead: (f) => {
    for (let b = 0; b < B; b++) for (let a = 0; a < heads; a++) f(b * S * H + a * D, (b * heads + a) * S * S, b);
  } };
}

/**
 * p = softmax(q kᵀ/√D + mask) for each head: q, k [B, S, H], mask [B, S] on keys -> [B, A, S, S].
 *
 * `mask_value` −∞ rules a masked key out; a sequence without any visible key then attends uniformly, and its scores
 * still get softmax's gradient. Any other value is added to the scores of masked keys, and only that.
 */
export function attention_probabilities(q, k, { mask, heads, mask_value }) {
  const { B, S, H, D, everyHead } = headsOf([q, k], mask, heads);
  const scale = 1 / Math.sqrt(D), scores = zeros([B, heads, S, S]);
  everyHead((at, to, b) => {
    product(matrix(scores.data, to, S), matrix(q.data, at, H), matrix(k.data, at, H), S, S, D);
    const visible = row(mask.data, b, S), some = visible.some((m) => m);
    for (let i = 0; i < S * S; i++) {
      const score = scores.data[to + i] * scale;
      if (visible[i % S]) scores.data[to + i] = score;
      else if (mask_value !== -Infinity) scores.data[to + i] = score + mask_value;
      else scores.data[to + i] = some ? -Infinity : 0;
    }
  });
  const [p, softmaxBack] = softmax(scores);
  return differentiable(p, (dp) => {
    const ds = each(softmaxBack(dp)[0], (d) => d * scale), dq = zeros(q.shape), dk = zeros(k.shape);
    everyHead((at, to) => {
      const dS = matrix(ds.data, to, S), Q = matrix(q.data, at, H), K = matrix(k.data, at, H);
      product(matrix(dq.data, at, H), dS, transposed(K, S, D), S, D, S);
      product(matrix(dk.data, at, H), transposed(dS, S, S), transposed(Q, S, D), S, D, S);
    });
    return [dq, dk];
  });
}

/** y = dropout(p) v for each head, heads side by side: q, k, v [B, S, H] -> [B, S, H]. `keep` [B, A, S, S] or null. */
export function attention(q, k, v, { mask, heads, mask_value, keep = null, rate = 0 }) {
  const { S, H, D, everyHead } = headsOf([q, k, v], mask, heads);
  const [p, probabilitiesBack] = attention_probabilities(q, k, { mask, heads, mask_value });
  const [dropped, dropoutBack] = keep === null ? [p, (d) => [d]] : dropout(p, { keep, rate });
  const y = zeros(q.shape);
  everyHead((at, to) => {
    product(matrix(y.data, at, H), matrix(dropped.data, to, S), transposed(matrix(v.data, at, H), S, D), S, D, S);
  });
  return differentiable(y, (dy) => {
    const dp = zeros(p.shape), dv = zeros(v.shape);
    everyHead((at, to) => {
      const dY = matrix(dy.data, at, H);
      product(matrix(dp.data, to, S), dY, matrix(v.data, at, H), S, S, D);
      product(matrix(dv.data, at, H), transposed(matrix(dropped.data, to, S), S, S), transposed(dY, S, D), S, D, S);
    });
    const [dq, dk] = probabilitiesBack(dropoutBack(dp)[0]);
    return [dq, dk, dv];
  });
}

// ---- losses -----------------------------------------------------------------------------------------------------
/** A loss is divided by the caller's denominator, and is 0 where that is. */
const share = (denominator) => (denominator === 0 ? 0 : 1 / denominator);

/** loss = Σ (lse(z) − z_label)/denominator over the labelled rows of logits [..., C]; a label of `IGNORE` is none. */
export function cross_entropy(logits, labels, { denominator }) {
  const [N, C] = rowsOf(logits), label = labels.data;
  need(label.length === N, `labels must be as many as rows of logits, got ${said(labels, logits)}`);
  checkRange(label.filter((c) => c !== IGNORE), C, `labels other than ${IGNORE}`);
  const p = new Float64Array(C);
  const loss = label.reduce((sum, c, n) =>
    (c === IGNORE ? sum : sum + softmaxOf(row(logits.data, n, C), p) - logits.data[n * C + c]), 0);
  return differentiable(asarray([], [loss * share(denominator)]), (dloss) => {
    const dz = zeros(logits.shape), d = dloss.data[0] * share(denominator);
    label.forEach((c, n) => {
      if (c === IGNORE) return;
      softmaxOf(row(logits.data, n, C), p);
      p[c] -= 1;
      row(dz.data, n, C).set(p.map((difference) => difference * d));
    });
    return [dz];
  });
}

/** loss = Σ (x − targets)²/denominator. */
export function mean_squared_error(x, targets, { denominator }) {
  need(alike(x, targets), `mean_squared_error needs equal shapes, got ${said(x, targets)}`);
  const difference = (v, i) => v - Math.fround(targets.data[i]);
  const sum = x.data.reduce((total, v, i) => total + difference(v, i) ** 2, 0);
  return differentiable(asarray([], [sum * share(denominator)]), (dloss) =>
    [each(x, (v, i) => difference(v, i) * (2 * dloss.data[0] * share(denominator)))]);
}
