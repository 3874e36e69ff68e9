/* One time step of the machine's GRU cell in one pass, forwards and backwards: see fused.py.

   Arrays are [B, H] unless said otherwise, gates r before z. Integers travel as float or double,
   which hold them exactly; the equations are `espalier.quantized.cell`'s. */

#include <math.h>
#include <stdint.h>

#define GATE 0x1p-15
#define INDEX(x) ((int32_t)(x) + 32768)

static inline double clamp(double x, double low, double high)
{
    x = x < low ? low : x;
    return x > high ? high : x;
}
static inline double clamp16(double x) { return clamp(x, -32768.0, 32767.0); }
static inline double element(double total, double factor, double offset)
{
    return clamp16(floor(offset + total * factor));
}
static inline double gate_round(double x) { return floor(x * GATE + 0.5); }

/* total_i, total_h [B, 3H]; parameters [2H] of r and z, [H] of u and v; tables [2^16];
   state (h16 before, h' after); gates [B, 2H]; columns are h8 of h'. */
void forward(int64_t batch, int64_t hidden, const float *total_i, const float *total_h,
             const double *gate_factor, const double *gate_offset,
             const double *u_factor, const double *u_offset,
             const double *v_factor, const double *v_offset,
             const double *sigmoid, const double *tanh_table,
             double *restrict state, float *restrict gates, float *restrict new_value,
             float *restrict new_hidden, float *restrict states, float *restrict columns)
{
    for (int64_t b = 0; b < batch; b++) {
        const float *ti = total_i + 3 * hidden * b, *th = total_h + 3 * hidden * b;
        float *g = gates + 2 * hidden * b;
        int64_t at = hidden * b;
#pragma GCC ivdep
        for (int64_t i = 0; i < 2 * hidden; i++) {
            double a = element((double)ti[i] + (double)th[i], gate_factor[i], gate_offset[i]);
            g[i] = (float)sigmoid[INDEX(a)];
        }
#pragma GCC ivdep
        for (int64_t i = 0; i < hidden; i++) {
            double r = g[i], z = g[hidden + i], h = state[at + i];
            double u = element(th[2 * hidden + i], u_factor[i], u_offset[i]);
            double v = element(ti[2 * hidden + i], v_factor[i], v_offset[i]);
            double n = tanh_table[INDEX(clamp16(v + gate_round(u * r)))];
            double s = gate_round(z * (h - n)) + n;
            double c = floor(s * 0x1p-8 + 0.5);
            state[at + i] = s;
            new_value[at + i] = (float)n;
            new_hidden[at + i] = (float)u;
            states[at + i] = (float)(s * GATE);
            columns[at + i] = (float)clamp(c, -127.0, 127.0);
        }
    }
}

/* Gradients of n's argument, of r's and z's argument and u [B, 3H]; `carried` is what reaches h
   past the products. `back` arrives from the step behind, `gradient` from outside. */
void backward(int64_t batch, int64_t hidden, const float *gates, const float *new_value,
              const float *new_hidden, const float *before, const float *gradient,
              const float *back, float unit, float *restrict to_new, float *restrict to_hidden,
              float *restrict carried)
{
    for (int64_t b = 0; b < batch; b++) {
        const float *g = gates + 2 * hidden * b;
        float *out = to_hidden + 3 * hidden * b;
        int64_t at = hidden * b;
#pragma GCC ivdep
        for (int64_t i = 0; i < hidden; i++) {
            float r = g[i] * (float)GATE, z = g[hidden + i] * (float)GATE;
            float n = new_value[at + i] * (float)GATE, u = new_hidden[at + i] * unit;
            float arriving = gradient[at + i] + back[at + i];
            float to_n = arriving * (1 - z) * (1 - n * n), to_u = to_n * r;
            to_new[at + i] = to_n;
            out[i] = to_u * u * (1 - r);
            out[hidden + i] = (before[at + i] - n) * arriving * z * (1 - z);
            out[2 * hidden + i] = to_u;
            carried[at + i] = arriving * z;
        }
    }
}

/* Scale of each row of weight [rows, columns]: of the `count` ratios of what its largest weight
   needs, the one with the least squared error. `kept` [columns] and `most` are scratch. */
void row_scales(int64_t rows, int64_t columns, const float *weight, const float *levels,
                const float *ratios, int64_t count, float least, float limit,
                float *restrict kept, float *restrict most, float *restrict scales)
{
    for (int64_t r = 0; r < rows; r++) {
        const float *w = weight + columns * r;
        int64_t used = 0;
        float full = 0;
        for (int64_t j = 0; j < columns; j++) {
            if (w[j] == 0)
                continue;
            float needed = fabsf(w[j]) / levels[j];
            full = needed > full ? needed : full;
            kept[used] = w[j];
            most[used++] = levels[j];
        }
        full = full < least ? least : full > limit ? limit : full;
        double smallest = INFINITY;
        scales[r] = full;
        for (int64_t k = 0; k < count; k++) {
            float scale = full * ratios[k];
            double error = 0;
            scale = scale < least ? least : scale;
#pragma omp simd reduction(+ : error)
            for (int64_t j = 0; j < used; j++) {
                float level = floorf(kept[j] / scale + 0.5f);
                level = level < -most[j] ? -most[j] : level;
                level = level > most[j] ? most[j] : level;
                float d = level * scale - kept[j];
                error += (double)(d * d);
            }
            if (error < smallest) {
                smallest = error;
                scales[r] = scale;
            }
        }
    }
}
