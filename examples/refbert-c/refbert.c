/* A backend of refbert in C: BERT's operations in float32, forward and backward. What they compute: refbert/ops. How
   requests travel: docs/wire-protocol.md. From top to bottom: arrays, operations, messages and requests. */
#include <err.h>
#include <math.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#define EACH(i, n) (Int i = 0; i < (Int)(n); i++)
#define SAY(...) (said += snprintf(said, answer + sizeof answer - said, __VA_ARGS__)) /* ' stands for JSON's " */
enum { AXES = 32, LONGEST_HEADER = 1 << 24, IGNORE = -100 };
enum { MASK = 3, KEEP, Y, P, KEPT, ARRAYS }; /* behind the arguments; P, KEPT: probabilities before and after dropout */
enum { EPS, HEADS, MASK_VALUE, RATE, SHARE, NUMBERS };
typedef long long Int;
typedef struct { Int rank, n[AXES]; } Shape;
typedef struct Array { /* kind: an array of the backend's, a tensor of the host's (mask, ids, targets), or a pullback */
    char kind; Shape shape;
    Int size, rows, width, number, held, needed; /* [..., width]; held: refbert has its number; needed: by a pullback */
    union { float *data; double *host; struct Call *call; };
    struct Array *next;
} Array;
typedef struct Call { const struct Op *op; Array *x[ARRAYS]; double n[NUMBERS]; Shape list; } Call;
typedef struct Op { /* arguments: the kinds of arrays by position, l for a list; run: makes Y, or from dy fills d */
    const char *name, *arguments;
    void (*run)(Call *c, const Array *dy, Array **d);
    double (*curve)(double x, double z, int dx); const char *form;
} Op;
static const Int MAGIC = 0x3174726562666572; /* "refbert1", its lowest byte first: as numbers must lie in memory here */
static Array *arrays, *sent; /* all that there are, the newest first; the one that travels with the answer */
static char header[LONGEST_HEADER + 99], answer[1 << 14], *said, *ok; /* ok: where an error goes; NULL: nowhere */
static jmp_buf refused;
static void refuse(const char *kind, const char *why) {
    if (!ok) errx(1, "%s", why);
    said = ok;
    SAY("'error': {'kind': '%s', 'message': '%s'}", kind, why);
    longjmp(refused, 1);
}
static void need(int so, const char *why) { if (!so) refuse("invalid", why); }

/* ---- Arrays and matrices ---- */
static Int count(const Int *n, Int rank) {
    double size = 1;
    for EACH(k, rank) size *= n[k] < 0 ? (double)NAN : n[k]; /* NAN alone is a float, and so the sizes would be */
    need(size < 0x1p42, "there are no arrays of such a shape");
    return size;
}
static Array *make(char kind, Shape shape, Int bytes) {
    static Int last;
    Int rank = shape.rank, size = count(shape.n, rank), rows = count(shape.n, rank - 1);
    Array *a = calloc(1, sizeof *a + size * bytes + 8); /* what is sent is filled up to 8 bytes */
    need(a != NULL, "there is no memory for an array of such a shape");
    *a = (Array){kind, shape, size, rows, rank ? shape.n[rank - 1] : 1, ++last, 0, 0, {(float *)(a + 1)}, arrays};
    return arrays = a;
}
static Array *zeros(Shape shape) { return make('a', shape, sizeof(float)); }
static Array *like(const Array *x) { return zeros(x->shape); }
static Array *copy(const Array *x, Shape shape) {
    Array *y = zeros(shape);
    return memcpy(y->data, x->data, x->size * sizeof(float)), y;
}
static int same(const Array *x, const Array *z) { return x && z && !memcmp(&x->shape, &z->shape, sizeof x->shape); }
typedef struct { float *at; Int rows, columns, down, right; } Matrix; /* entry i, j is at[i * down + j * right] */
static Matrix flat(const Array *x) { return (Matrix){x->data, x->rows, x->width, x->width, 1}; }
static Matrix turned(Matrix a) { return (Matrix){a.at, a.columns, a.rows, a.right, a.down}; }
static Matrix square(const Array *p, Int S, Int i) { return (Matrix){p->data + i * S * S, S, S, S, 1}; }
static Matrix head(const Array *x, Int A, Int i) { /* number i of [B, S, A·D], where a sequence's lie side by side */
    Int S = x->shape.n[1], D = x->width / A;
    return (Matrix){x->data + i / A * S * x->width + i % A * D, S, D, x->width, 1};
}
static void multiply(Matrix c, Matrix a, Matrix b) { /* c += a b; rows of c stay in the cache while b goes by */
    float *row = zeros((Shape){1, {c.columns}})->data;
    for (Int top = 0; top < c.rows; top += 32)
        for EACH(k, a.columns) {
            for EACH(j, c.columns) row[j] = b.at[k * b.down + j * b.right];
            for (Int i = top; i < c.rows && i < top + 32; i++) {
                float factor = a.at[i * a.down + k * a.right], *restrict to = c.at + i * c.down;
                for EACH(j, c.columns) to[j] += factor * row[j];
            }
        }
}

/* ---- Operations; first, of those on single entries, y(x, z), or dy/dx. NaN stays NaN everywhere ---- */
static double sum(double x, double z, int dx) { return dx ? 1 : x + z; }
static double square_error(double x, double z, int dx) { return (dx ? 2 : x - (float)z) * (x - (float)z); }
static double relu(double x, double z, int dx) { return dx ? x > 0 : x < 0 ? 0 : x; }
static double tangent(double x, double z, int dx) { return dx ? (1 - tanh(x)) * (1 + tanh(x)) : tanh(x); }
static double gelu_erf(double x, double z, int dx) { /* ½ erfc(−x/√2) is Φ(x), without cancelling */
    return (dx ? 1 : x) * 0.5 * erfc(-x * M_SQRT1_2) + (dx ? x * exp(-0.5 * x * x) / sqrt(2 * M_PI) : 0);
}
static double gelu_tanh(double x, double z, int dx) {
    double root = sqrt(2 / M_PI), u = root * (x + 0.044715 * x * x * x), T = 1 / (1 + exp(-2 * u));
    return dx ? T + 2 * x * T / (1 + exp(2 * u)) * root * (1 + 3 * 0.044715 * x * x) : x * T;
}
static void pointwise(Call *c, const Array *dy, Array **d) {
    Array *x = c->x[0], *z = c->x[1];
    int loss = c->op->curve == square_error; /* y is a single sum */
    need(!z || same(x, z), "the two shapes must be equal");
    if (!dy) c->x[Y] = zeros(loss ? (Shape){0} : x->shape);
    for EACH(i, x->size) {
        double second = !z ? 0 : z->kind == 't' ? z->host[i] : z->data[i];
        double value = c->op->curve(x->data[i], second, dy != NULL) * c->n[SHARE];
        if (dy) d[0]->data[i] = dy->data[loss ? 0 : i] * value; else c->x[Y]->data[loss ? 0 : i] += value;
    }
    if (dy && d[1]) d[1] = copy(dy, dy->shape);
}
static Array *dropped(const Call *c, const Array *x) {
    Array *y = copy(x, x->shape), *keep = c->x[KEEP];
    need(!keep || (same(x, keep) && c->n[RATE] >= 0 && c->n[RATE] < 1), "keep must be as x is, and the rate in [0, 1)");
    for (Int i = 0; keep && i < x->size; i++) y->data[i] *= (keep->host[i] != 0) / (1 - c->n[RATE]); /* NaN stays */
    return y;
}
static void dropout(Call *c, const Array *dy, Array **d) { *(dy ? d : &c->x[Y]) = dropped(c, dy ? dy : c->x[0]); }
static void reshape(Call *c, const Array *dy, Array **d) {
    need(count(c->list.n, c->list.rank) == c->x[0]->size, "reshape needs a shape with as many entries");
    *(dy ? d : &c->x[Y]) = copy(dy ? dy : c->x[0], dy ? c->x[0]->shape : c->list);
}
static void transpose(Call *c, const Array *dy, Array **d) {
    Shape x = c->x[0]->shape, y = x;
    Int *axes = c->list.n, seen = 0, step[AXES];
    for EACH(k, c->list.rank) {
        need(axes[k] >= 0 && axes[k] < x.rank && c->list.rank == x.rank, "axes must be as many as x has");
        y.n[k] = x.n[axes[k]], seen |= 1LL << axes[k];
        step[k] = count(x.n + axes[k] + 1, x.rank - axes[k] - 1);
    }
    need(seen == (1LL << x.rank) - 1, "axes must be a permutation");
    if (!dy) c->x[Y] = zeros(y);
    for EACH(i, c->x[Y]->size) { /* entry i of y is entry j of x */
        Int j = 0, rest = i;
        for (Int k = y.rank - 1; k >= 0; rest /= y.n[k--]) j += rest % y.n[k] * step[k];
        *(dy ? &d[0]->data[j] : &c->x[Y]->data[i]) = dy ? dy->data[i] : c->x[0]->data[j];
    }
}
static void lookup(Call *c, const Array *dy, Array **d) { /* a row taken twice gets the sum of both cotangents */
    Array *x = c->x[0], *ids = c->x[1];
    Shape y = ids->shape;
    Int H = y.n[y.rank++] = x->width;
    for (double *id = ids->host; id < ids->host + ids->size; id++)
        if (!(*id >= 0 && *id < x->rows && *id == floor(*id))) refuse("out of range", "there is no row of this number");
    if (!dy) c->x[Y] = zeros(y);
    for EACH(i, ids->size * H) {
        Int j = (Int)ids->host[i / H] * H + i % H;
        if (dy) d[0]->data[j] += dy->data[i]; else c->x[Y]->data[i] = x->data[j];
    }
}
static void linear(Call *c, const Array *dy, Array **d) {
    Array *x = c->x[0], *w = c->x[1], *b = c->x[2];
    need(x->shape.rank && w->shape.rank == 2 && x->width == w->width && b->shape.rank == 1 && b->size == w->rows,
         "linear needs x [..., I], w [O, I], b [O]");
    if (dy) {
        multiply(flat(d[0]), flat(dy), flat(w));
        multiply(flat(d[1]), turned(flat(dy)), flat(x));
        for EACH(i, dy->size) d[2]->data[i % b->size] += dy->data[i];
        return;
    }
    Shape y = x->shape;
    y.n[y.rank - 1] = b->size;
    c->x[Y] = zeros(y);
    for EACH(i, c->x[Y]->size) c->x[Y]->data[i] = b->data[i % b->size];
    multiply(flat(c->x[Y]), flat(x), turned(flat(w)));
}
static void layer_norm(Call *c, const Array *dy, Array **d) {
    float *gamma = c->x[1]->data, *beta = c->x[2]->data;
    Int H = c->x[0]->width;
    need(c->x[1]->shape.rank == 1 && c->x[1]->size == H && same(c->x[1], c->x[2]), "gamma and beta must be [H]");
    if (!dy) c->x[Y] = like(c->x[0]);
    for EACH(n, c->x[0]->rows) {
        float *x = c->x[0]->data + n * H, *g = dy ? dy->data + n * H : NULL, *to = (dy ? d[0] : c->x[Y])->data + n * H;
        double mean = 0, variance = 0, q = 0, qx = 0;
        for EACH(j, H) mean += (double)x[j] / H;
        for EACH(j, H) variance += (x[j] - mean) * (x[j] - mean) / H; /* a second pass: E[x²] − mean² would cancel */
        double r = 1 / sqrt(variance + c->n[EPS]);
        if (!dy) for EACH(j, H) to[j] = gamma[j] * ((x[j] - mean) * r) + beta[j];
        if (!dy) continue;
        for EACH(j, H) q += (double)g[j] * gamma[j] / H;
        for EACH(j, H) qx += (double)g[j] * gamma[j] * (x[j] - mean) * r / H;
        for EACH(j, H) to[j] = r * ((double)g[j] * gamma[j] - q - (x[j] - mean) * r * qx);
        for EACH(j, H) d[1]->data[j] += g[j] * (x[j] - mean) * r, d[2]->data[j] += g[j];
    }
}
static double softmax_row(float *x, Int n) { /* in place; gives log Σ eˣ */
    double sum = 0, most = -INFINITY;
    for EACH(j, n) most = x[j] > most ? x[j] : most;
    for EACH(j, n) sum += x[j] = expf(x[j] - most);
    for EACH(j, n) x[j] /= sum;
    return most + log(sum);
}
static void softmax_back(const Array *p, const Array *dp, Array *ds, double scale) {
    for (Int at = 0, n = p->width; at < p->size; at += n) {
        double t = 0;
        for EACH(j, n) t += (double)p->data[at + j] * dp->data[at + j];
        for EACH(j, n) ds->data[at + j] = p->data[at + j] * (dp->data[at + j] - t) * scale;
    }
}
static void softmax(Call *c, const Array *dy, Array **d) {
    if (dy) return softmax_back(c->x[Y], dy, d[0], 1);
    c->x[Y] = copy(c->x[0], c->x[0]->shape);
    for EACH(i, c->x[Y]->rows) softmax_row(c->x[Y]->data + i * c->x[Y]->width, c->x[Y]->width);
}
static void attention(Call *c, const Array *dy, Array **d) { /* attention_probabilities, too, which has no v */
    Array *q = c->x[0], *k = c->x[1], *v = c->x[2], *mask = c->x[MASK], *p = c->x[P];
    Int A = fmin(fmax(c->n[HEADS], 1), 1 << 20), B = q->shape.n[0], S = q->shape.n[1], N = B * A;
    double scale = 1 / sqrt(q->width / A), added = c->n[MASK_VALUE];
    need(q->shape.rank == 3 && same(q, k) && (!v || same(q, v)), "attention needs q, k, v [B, S, H]");
    need(A == c->n[HEADS] && q->width >= A && q->width % A == 0, "the number of heads must divide H");
    need(mask && mask->shape.rank == 2 && mask->rows == B && mask->width == S, "mask must be [B, S]");
    if (dy) {
        Array *dp = like(p), *ds = like(p);
        for (Int i = 0; v && i < N; i++) multiply(head(d[2], A, i), turned(square(c->x[KEPT], S, i)), head(dy, A, i));
        for (Int i = 0; v && i < N; i++) multiply(square(dp, S, i), head(dy, A, i), turned(head(v, A, i)));
        softmax_back(p, v ? dropped(c, dp) : dy, ds, scale);
        for EACH(i, N) multiply(head(d[0], A, i), square(ds, S, i), head(k, A, i));
        for EACH(i, N) multiply(head(d[1], A, i), turned(square(ds, S, i)), head(q, A, i));
        return;
    }
    p = c->x[P] = zeros((Shape){4, {B, A, S, S}});
    for EACH(i, N) multiply(square(p, S, i), head(q, A, i), turned(head(k, A, i)));
    for EACH(i, p->rows) {
        float *s = p->data + i * S;
        double *visible = mask->host + i / (A * S) * S, some = 0, cut = added == -INFINITY;
        for EACH(j, S) some += visible[j] != 0;
        for EACH(j, S) s[j] = visible[j] ? s[j] * scale : !cut ? s[j] * scale + added : some ? -INFINITY : 0;
        softmax_row(s, S);
    }
    c->x[KEPT] = dropped(c, p), c->x[Y] = v ? like(v) : p;
    for (Int i = 0; v && i < N; i++) multiply(head(c->x[Y], A, i), square(c->x[KEPT], S, i), head(v, A, i));
}
static void cross_entropy(Call *c, const Array *dy, Array **d) {
    Array *p = copy(c->x[0], c->x[0]->shape);
    double *labels = c->x[1]->host;
    need(c->x[1]->size == p->rows, "cross_entropy needs a label for each row of logits [..., C]");
    if (!dy) c->x[Y] = zeros((Shape){0});
    for (Int n = 0, C = p->width; n < p->rows; n++) {
        float *row = p->data + n * C;
        if (labels[n] == IGNORE) continue;
        if (!(labels[n] >= 0 && labels[n] < C)) refuse("out of range", "there is no class of this label");
        double loss = softmax_row(row, C) - c->x[0]->data[n * C + (Int)labels[n]];
        if (!dy) c->x[Y]->data[0] += loss * c->n[SHARE];
        else for EACH(j, C) d[0]->data[n * C + j] = (row[j] - (j == labels[n])) * (dy->data[0] * c->n[SHARE]);
    }
}
static const Op OPS[] = {
    {"add", "aa", pointwise, sum}, {"relu", "a", pointwise, relu}, {"tanh", "a", pointwise, tangent},
    {"gelu", "a", pointwise, gelu_erf, "erf"}, {"gelu", "a", pointwise, gelu_tanh, "tanh"},
    {"mean_squared_error", "at", pointwise, square_error}, {"dropout", "a", dropout}, {"softmax", "a", softmax},
    {"reshape", "al", reshape}, {"transpose", "al", transpose}, {"embedding", "at", lookup}, {"gather", "at", lookup},
    {"linear", "aaa", linear}, {"layer_norm", "aaa", layer_norm}, {"cross_entropy", "at", cross_entropy},
    {"attention", "aaa", attention}, {"attention_probabilities", "aa", attention},
};

/* ---- Messages and requests; a value of JSON is the place in the header where it begins ---- */
static const char *blank(const char *at) { return at + strspn(at, " \t\r\n"); }
static const char *past(const char *at) { /* behind the value: at the comma, colon or bracket that follows */
    int depth = 0, quoted = 0;
    for (; *at && (quoted || depth || !strchr(",:]}", *at)); at++)
        if (quoted && *at == '\\' && at[1]) at++;
        else if (*at == '"') quoted = !quoted;
        else if (!quoted) depth += (*at == '[' || *at == '{') - (*at == ']' || *at == '}');
    return at;
}
static int is(const char *v, const char *s) { return v && !strncmp(v + 1, s, strlen(s)) && v[strlen(s) + 1] == '"'; }
static const char *get(const char *v, const char *name, Int i) { /* a member, or element i, or NULL */
    const char *at = v && (*v == '{' || *v == '[') ? blank(v + 1) : "", *key = at;
    for (; *at && *at != ']' && *at != '}'; key = at = blank(at + (*at == ',' || *at == ':'))) {
        if (name) at = blank(past(at) + (*past(at) == ':'));
        if (name ? is(key, name) : i-- == 0) return at;
        at = past(at);
    }
    return NULL;
}
static double number(const char *v) { return v ? strtod(v + (*v == '"'), NULL) : NAN; } /* "inf", too, and "-inf" */
static Shape list(const char *v) {
    Shape shape = {0};
    for (const char *one; (one = get(v, NULL, shape.rank)); shape.n[shape.rank++] = number(one))
        need(shape.rank < AXES - 1 && fabs(number(one)) < 0x1p53, "a list has too many numbers, or too large ones");
    return shape;
}
static void receive(void *to, size_t n) { need(fread(to, 1, n, stdin) == n, "the connection has ended in a message"); }
static double entry(const char *at, char kind, int bits) { /* the lowest byte comes first, as on this machine */
    union { unsigned long long whole; float single; double twice; } as = {0};
    memcpy(&as, at, bits / 8);
    if (kind != 'f') return kind == 'i' ? (double)((Int)(as.whole << (64 - bits)) >> (64 - bits)) : (double)as.whole;
    if (bits > 16) return bits == 32 ? as.single : as.twice;
    int exponent = as.whole >> 10 & 31, fraction = (as.whole & 1023) + (exponent ? 1024 : 0);
    double size = exponent < 31 ? ldexp(fraction, exponent ? exponent - 25 : -24) : fraction > 1024 ? NAN : INFINITY;
    return as.whole >> 15 ? -size : size;
}
static void read_tensor(const char *described, Int number, Int *left) {
    const char *dtype = get(described, "dtype", 0);
    char kind = 0, bits = 8; /* of float32 f and 32; a bool has 8 */
    int known = dtype && sscanf(dtype, "\"%c%*[a-z]%hhd", &kind, &bits) && strchr("biuf", kind);
    need(known && bits > 0 && bits % 8 == 0 && bits <= 64, "a tensor has a dtype that there is not");
    Array *x = make('t', list(get(described, "shape", 0)), sizeof(double));
    Int bytes = (x->size * bits / 8 + 7) / 8 * 8;
    need((*left -= bytes) >= 0, "a payload is shorter than its tensors");
    char *raw = (char *)zeros((Shape){1, {bytes / 4}})->data;
    receive(raw, bytes);
    for EACH(i, x->size) x->host[i] = entry(raw + i * bits / 8, kind, bits);
    x->number = number, x->held = 1;
}
static int read_message(void) { /* whether there is one */
    Int prefix[3] = {0}, i = 0; /* and the lengths of header and payload */
    if (!fread(prefix, 1, sizeof prefix, stdin)) return 0;
    need(prefix[0] == MAGIC && prefix[1] >= 0 && prefix[1] <= LONGEST_HEADER, "this is no message of the protocol");
    receive(header, prefix[1]), header[prefix[1]] = 0;
    need(past(header) == header + prefix[1] && get(header, "id", 0), "a header is no JSON object with an id");
    for (const char *one; (one = get(get(header, "tensors", 0), NULL, i)); i++) read_tensor(one, i, &prefix[2]);
    need(prefix[2] == 0, "a payload is longer than its tensors");
    return 1;
}
static const char *word(char kind) { return kind == 'a' ? "array" : kind == 't' ? "tensor" : "pullback"; }
static Array *find(char kind, const char *v) { /* what {"array": 7}, {"tensor": 0} or {"pullback": 8} names, or NULL */
    double called = number(get(v, word(kind), 0));
    Array *a = arrays;
    while (a && !(a->held && a->kind == kind && a->number == called)) a = a->next;
    return a;
}
static void say_arrays(const char *before, Array **x, Int n, const char *after) { /* unknown keys are ignored */
    for EACH(i, n) {
        SAY("%s{'%s': %lld, 'dtype': 'float32', 'shape': [", i ? ", " : before, word(x[i]->kind), x[i]->number);
        for EACH(k, x[i]->shape.rank) SAY(k ? ", %lld" : "%lld", x[i]->shape.n[k]);
        SAY("]}%s", i + 1 < n ? "" : after);
        x[i]->held = 1;
    }
}
static void call(void) {
    static const char *numbers[NUMBERS] = {"eps", "heads", "mask_value", "rate", "denominator"};
    const char *op = get(header, "op", 0), *args = get(header, "args", 0), *options = get(header, "options", 0);
    Call c = {0};
    for (const Op *one = OPS; one < OPS + sizeof OPS / sizeof *OPS; one++)
        if (is(op, one->name) && (!one->form || is(get(options, "form", 0), one->form))) c.op = one;
    need(c.op != NULL, "there is no such operation, or no such form of it");
    for EACH(k, strlen(c.op->arguments))
        if (c.op->arguments[k] == 'l') c.list = list(get(args, NULL, k));
        else need((c.x[k] = find(c.op->arguments[k], get(args, NULL, k))) != NULL, "an argument is missing");
    c.x[MASK] = find('t', get(options, "mask", 0)), c.x[KEEP] = find('t', get(options, "keep", 0));
    for EACH(k, NUMBERS) c.n[k] = number(get(options, numbers[k], 0));
    c.n[SHARE] = isnan(c.n[SHARE]) ? 1 : c.n[SHARE] ? 1 / c.n[SHARE] : 0; /* of one row in a loss */
    c.op->run(&c, NULL, NULL);
    Array *results[] = {c.x[Y], make('p', (Shape){0}, sizeof(Call))}; /* newer than its arrays: see `sweep` */
    *results[1]->call = c;
    say_arrays("'ok': {'result': [", results, 2, "]}");
}
static void pull(void) {
    Array *pullback = find('p', header), *dy = find('a', get(get(header, "args", 0), NULL, 0)), *d[3] = {0};
    need(pullback && same(dy, pullback->call->x[Y]), "a pullback takes an array of the shape of the result");
    for EACH(k, strspn(pullback->call->op->arguments, "a")) d[k] = like(pullback->call->x[k]);
    pullback->call->op->run(pullback->call, dy, d);
    say_arrays("'ok': {'result': [", d, strspn(pullback->call->op->arguments, "a"), "]}");
}
static void serve(void) {
    const char *what = get(header, "do", 0), *gone = get(header, "free", 0), *dtype = get(header, "dtype", 0);
    for (Int i = 0; get(gone, NULL, i); i++) {
        double called = number(get(gone, NULL, i));
        for (Array *a = arrays; a; a = a->next) a->held &= a->kind == 't' || a->number != called;
    }
    Array *x = find(is(what, "put") ? 't' : 'a', get(header, "value", 0));
    if (is(what, "hello")) {
        SAY("'ok': {'wire': 1, 'contract': 1, 'name': 'refbert-c', 'library': 'C, compiler " __VERSION__ "', ");
        SAY("'device': 'cpu', 'dtypes': ['float32'], 'offers': ['asarray', 'to_numpy'");
        for EACH(k, sizeof OPS / sizeof *OPS) if (!OPS[k].form || *OPS[k].form == 'e') SAY(", '%s'", OPS[k].name);
        SAY("]}");
    } else if (is(what, "open")) {
        if (dtype && *dtype == '"' && !is(dtype, "float32")) refuse("unsupported", "there is float32 alone");
        SAY("'ok': {'instance': 1, 'dtype': 'float32'}");
    } else if (is(what, "put") && x) {
        Array *y = like(x);
        for EACH(i, x->size) y->data[i] = x->host[i];
        say_arrays("'ok': {'result': ", &y, 1, "}");
    } else if (is(what, "get") && x) {
        say_arrays("'ok': {'result': {'tensor': 0}}, 'tensors': [", &x, 1, "]");
        sent = x;
    } else if (is(what, "call")) call();
    else if (is(what, "pull")) pull();
    else refuse("invalid", "there is no such request, or nothing of this number");
}
static void sweep(void) { /* frees what refbert does not hold, nor a pullback needs; these stand before their arrays */
    Int now = number(get(header, "id", 0)); /* which is another one for every request */
    for (Array **at = &arrays, *a; (a = *at);) {
        a->held &= a->kind != 't';
        for (Int k = 0; a->held && a->kind == 'p' && k < ARRAYS; k++) if (a->call->x[k]) a->call->x[k]->needed = now;
        if (a->held || a->needed == now) at = &a->next; else *at = a->next, free(a);
    }
}
int main(void) {
    int reading = 0, writing = 1;
    if (getenv("REFBERT_WIRE")) sscanf(getenv("REFBERT_WIRE"), "%d,%d", &reading, &writing);
    need(dup2(reading, 0) == 0 && dup2(writing, 1) == 1, "REFBERT_WIRE does not name two descriptors");
    for (said = answer; read_message(); sweep(), said = answer, sent = NULL, ok = NULL) {
        ok = SAY("{'id': %.0f, ", number(get(header, "id", 0)));
        if (!setjmp(refused)) serve();
        SAY("}");
        for (char *at = answer; at < said; at++) *at = *at == '\'' ? '"' : *at;
        Int prefix[3] = {MAGIC, said - answer, sent ? (sent->size + 1) / 2 * 8 : 0};
        fwrite(prefix, 1, sizeof prefix, stdout);
        fwrite(answer, 1, prefix[1], stdout);
        if (sent) fwrite(sent->data, 1, prefix[2], stdout);
        fflush(stdout);
    }
}
