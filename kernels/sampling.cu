// From rows of logits to tokens: the device's twin of src/engine/sampler.rs, bit by bit. Two launches: a survey of all rows by the whole grid,
// then a block per row that does what is asked of it. A row that penalties or a mask change is surveyed twice while it is at hand: as it is,
// for log-probabilities, and as its token is chosen. What is asked and what was found are small arrays; logarithms and random numbers are the
// host's. Knows rows; knows no sequence.
#include "sampling_block.cuh"

namespace sampling {

// What is asked of a row, written by the host before each step: 72 bytes.
struct Ask {
  double uniform;      // of [0, 1)
  float temperature;   // 0 or less: the likeliest token
  float top_p, min_p;  // as in SamplingParams, like the penalties
  float repetition, presence, frequency;
  int purpose;                   // 0: nothing, the row is padding; 1: its sum and its targets; 2: a token as well
  int top_k;                     // 0: all; no top_k is below 1
  int top_start, top_count;      // the likeliest tokens reported, at most as many as there are
  int seen_start, seen_end;      // of the tokens that penalties change, in ascending order, no token twice
  int target_start, target_end;  // of the tokens whose logits are reported
  int allowed;                   // which mask of allowed tokens; -1: none
  int unused;

  __device__ __forceinline__ bool penalises() const { return !(repetition == 1.0f && presence == 0.0f && frequency == 0.0f); }
  // Whether the token is chosen from other logits than the row's.
  __device__ __forceinline__ bool changes() const { return purpose == 2 && (allowed >= 0 || penalises()); }
};
static_assert(sizeof(Ask) == 72, "as the host lays it out");

// A token seen before, and how often in the answer.
struct Seen { unsigned token, count; };

// The first place of start .. end whose token is `token` or a later one.
__device__ inline int place_of(const Seen* seen, int start, int end, unsigned token) {
  while (start < end) {
    const int middle = start + (end - start) / 2;
    if (seen[middle].token < token) start = middle + 1;
    else end = middle;
  }
  return start;
}

// A likely token and its logit.
struct Top { int token; float logit; };

// What was found in a row: 24 bytes. ln(softmax) of a logit is logit - (best + ln sum), in f64.
struct Answer {
  double sum;  // of exp(logit - best)
  float best;
  float logit;  // of the token, before penalties
  int token;    // -1 if none is asked for
  int unused;
};
static_assert(sizeof(Answer) == 24, "as the host lays it out");

// What Survey of survey.rs says of a row.
struct Survey {
  Row row;
  const Run* runs;
  float temperature, best;

  // Of exp(logit - best) over the row.
  __device__ double sum() const {
    return sum_in_order(row.runs(), [&](int run) {
      return __dmul_rn(double(runs[run].sum), double(exponential(__fadd_rn(runs[run].max, -best))));
    });
  }

  // Of a run's weights.
  __device__ double total(int run) const {
    return __dmul_rn(double(runs[run].total), double(weight(runs[run].max, best, temperature)));
  }

  // Of all weights.
  __device__ double total() const {
    return sum_in_order(row.runs(), [&](int run) { return total(run); });
  }

  // The first of the largest logits.
  __device__ int argmax() const {
    const int run = first_where(0, row.runs(), [&](int run) { return runs[run].max == best; });
    return max(0, first_where(max(0, run) * RUN, row.count, [&](int token) { return row.at(token) == best; }));
  }

  // The token whose share of all weights, summed in order, holds `u`. Reads one run.
  __device__ int draw(double u) const {
    double left = __dmul_rn(u, total());
    // Only rounding, or a row without weights, leads past the end: then it is the last run that weighs something.
    int chosen = 0;
    walk(row.runs(), [&](int run) { return total(run); }, [&](int run, double weight) {
      const bool holds = left < weight;
      if (!holds) left = __dadd_rn(left, -weight);
      if (holds || weight > 0.0) chosen = run;
      return holds;
    });
    const int start = from_first(chosen) * RUN;
    const auto weigh = [&](int index) { return double(weight(row.at(start + index), best, temperature)); };
    chosen = 0;
    walk(min(RUN, row.count - start), weigh, [&](int index, double weight) {
      left = __dadd_rn(left, -weight);
      if (weight > 0.0) chosen = index;
      return left < 0.0;
    });
    return start + from_first(chosen);
  }

  // Hands the weights of the `most` likeliest tokens to the first thread's step(key, weight), likeliest first, until that says true.
  template <class Step>
  __device__ void walk_ranked(Ranking& ranking, int most, Step step) const {
    const auto weigh = [&](int index) { return double(weight(logit_of(shared().keys[index]), best, temperature)); };
    // The nucleus is nearly always small: look at the likeliest few, and at more only if these do not reach it.
    if (ranking.count == 0 || ranking.first > 0) ranking.begin(min(most, 128));
    while (true) {
      const auto walked = [&](int index, double weight) { return step(shared().keys[index], weight); };
      const int left = most - ranking.first;
      if (walk(min(ranking.count, left), weigh, walked) || left <= ranking.count) return;
      ranking.next();
    }
  }
};

__device__ inline Survey survey_of(const Row& row, const Run* runs, float temperature) {
  float best = -INFINITY;
  for (int run = int(threadIdx.x); run < row.runs(); run += THREADS) best = fmaxf(best, runs[run].max);
  best = warp_max(best);
  if (threadIdx.x % 32 == 0) shared().stage[threadIdx.x / 32] = double(best);
  __syncthreads();
  for (int warp = 0; warp < THREADS / 32; warp++) best = fmaxf(best, float(shared().stage[warp]));
  __syncthreads();
  return Survey{row, runs, temperature, best};
}

// Draws from what the filters leave.
__device__ NOT_INLINED inline int draw_filtered(Survey survey, const Ask& ask) {
  const int count = survey.row.count, most = ask.top_k == 0 ? count : min(ask.top_k, count);
  Ranking ranking{survey.row, survey.runs};
  double sum = 0.0;
  if (most < count) {
    survey.walk_ranked(ranking, most, [&](Key, double weight) {
      sum = __dadd_rn(sum, weight);
      return false;
    });
  }
  const double reach = __dmul_rn(most < count ? from_first(sum) : survey.total(), double(ask.top_p));
  // How many tokens are kept, and the sum of their weights: those that together reach top_p, of these the ones before the first whose
  // weight is below min_p, but one at least.
  const double lightest = ask.min_p;
  const bool reaches = ask.top_p < 1.0f;
  int kept = 0;
  sum = 0.0;
  survey.walk_ranked(ranking, most, [&](Key, double weight) {
    if (weight < lightest && kept > 0) return true;
    sum = __dadd_rn(sum, weight);
    kept++;
    return reaches && sum >= reach;
  });
  double left = __dmul_rn(ask.uniform, sum);
  int token = 0;
  survey.walk_ranked(ranking, from_first(kept), [&](Key key, double weight) {
    left = __dadd_rn(left, -weight);
    if (weight > 0.0) token = token_of(key);
    return left < 0.0;
  });
  return from_first(token);
}

__device__ inline int choose(const Survey& survey, const Ask& ask) {
  if (ask.temperature <= 0.0f) return survey.argmax();
  if (ask.top_k == 0 && ask.top_p >= 1.0f && ask.min_p <= 0.0f) return survey.draw(ask.uniform);
  return draw_filtered(survey, ask);
}

// The likeliest `count` tokens of a row with their logits.
__device__ NOT_INLINED inline void report_top(Row row, const Run* runs, int count, Top* top) {
  Ranking ranking{row, runs};
  for (ranking.begin(count);; ranking.next()) {
    const int left = count - ranking.first;
    for (int place = int(threadIdx.x); place < min(ranking.count, left); place += THREADS)
      top[ranking.first + place] = {token_of(shared().keys[place]), logit_of(shared().keys[place])};
    __syncthreads();
    if (left <= ranking.count) return;
  }
}

// sampler.rs's penalties.
__device__ __forceinline__ float penalised(float logit, unsigned count, const Ask& ask) {
  logit = logit > 0.0f ? __fdiv_rn(logit, ask.repetition) : __fmul_rn(logit, ask.repetition);
  if (count == 0) return logit;
  return __fadd_rn(logit, -__fadd_rn(ask.presence, __fmul_rn(ask.frequency, float(count))));
}

// What a temperature of NaN is to survey.rs.
__device__ __forceinline__ float temperature_of(const Ask& ask) { return ask.temperature > 0.0f ? ask.temperature : 0.0f; }

// The row as its token is chosen, but for penalties. Masks of allowed tokens have vocabulary / 32 words each, rounded up.
__device__ __forceinline__ Row row_left(Row row, const Ask& ask, const unsigned* masks) {
  if (ask.allowed >= 0) row.allowed = masks + size_t(ask.allowed) * ((row.count + 31) / 32);
  return row;
}

// The part of a run of such a row, penalties and all.
__device__ __forceinline__ Part part_left(const Row& row, int run, const Ask& ask, const Seen* seen) {
  Part part{row, run};
  if (!ask.penalises()) return part;
  const unsigned first = unsigned(run) * RUN, end = min(first + RUN, unsigned(row.count));
  for (int place = place_of(seen, ask.seen_start, ask.seen_end, first); place < ask.seen_end && seen[place].token < end; place++) {
    const auto [token, count] = seen[place];
    if (row.allows(int(token))) part.change(int(token - first), penalised(row.logits[token], count, ask));
  }
  return part;
}

}  // namespace sampling

// Surveys logits [rows, vocabulary] into runs [rows, runs of a row]. Grid: (runs / 16, rows). A row that is changed is read again, from the
// nearest cache, and surveyed again where something is changed: kept in registers it would cost all other rows a block of each multiprocessor.
RESIDENT_ENTRY(256, 5, pairwright_survey_f32, const float* logits, int vocabulary, const void* asks, void* runs, const void* all_seen,
      const unsigned* masks) {
  using namespace sampling;
  const Ask& ask = static_cast<const Ask*>(asks)[blockIdx.y];
  if (ask.purpose == 0) return;
  const Row row{logits + size_t(blockIdx.y) * vocabulary, nullptr, vocabulary};
  const int run = int(blockIdx.x) * (256 / LANES) + int(threadIdx.x) / LANES, present = vocabulary - run * RUN;
  const float temperature = ask.purpose == 2 ? temperature_of(ask) : 0.0f;
  Run found = survey_run(Part{row, run}, present, temperature);
  if (ask.changes()) {
    const Part part = part_left(row_left(row, ask, masks), run, ask, static_cast<const Seen*>(all_seen));
    if (__any_sync(0xffffffffu, !part.is_own)) {
      const Run chosen_from = survey_run(part, present, temperature);
      found.total = chosen_from.total, found.chosen_max = chosen_from.max;
    }
  }
  if (threadIdx.x % LANES == 0 && run < row.runs()) static_cast<Run*>(runs)[size_t(blockIdx.y) * row.runs() + run] = found;
}

// Does what is asked of each row. Grid: rows. Leaves the logits as they were; meanwhile a row that penalties change is changed in place, its
// own logits in `saved`, one for each of `seen`. Of runs it leaves those that the token was chosen from.
RESIDENT_ENTRY(256, 1, pairwright_choose_f32, float* logits, int vocabulary, const void* asks, void* all_runs, const void* all_seen, float* saved,
            const unsigned* targets, const unsigned* masks, void* answers, void* tops, float* target_logits) {
  using namespace sampling;
  const Ask& ask = static_cast<const Ask*>(asks)[blockIdx.x];
  if (ask.purpose == 0) return;
  float* const own = logits + size_t(blockIdx.x) * vocabulary;
  Row row{own, nullptr, vocabulary};
  Run* const runs = static_cast<Run*>(all_runs) + size_t(blockIdx.x) * row.runs();
  const Seen* const seen = static_cast<const Seen*>(all_seen);
  const float temperature = temperature_of(ask);

  const Survey raw = survey_of(row, runs, temperature);
  const double sum = raw.sum();
  Answer& answer = static_cast<Answer*>(answers)[blockIdx.x];
  if (threadIdx.x == 0) answer = {sum, raw.best, 0.0f, -1, 0};
  for (int target = ask.target_start + int(threadIdx.x); target < ask.target_end; target += THREADS)
    target_logits[target] = own[targets[target]];
  const int top_count = min(ask.top_count, vocabulary);
  if (top_count > 0) report_top(row, runs, top_count, static_cast<Top*>(tops) + ask.top_start);

  if (ask.purpose == 1) return;

  const int seen_end = ask.penalises() ? ask.seen_end : ask.seen_start;
  if (ask.changes()) {
    row = row_left(row, ask, masks);
    __syncthreads();
    for (int place = ask.seen_start + int(threadIdx.x); place < seen_end; place += THREADS) {
      if (seen[place].token >= unsigned(vocabulary)) continue;
      saved[place] = own[seen[place].token];
      own[seen[place].token] = penalised(saved[place], seen[place].count, ask);
    }
    for (int run = int(threadIdx.x); run < row.runs(); run += THREADS) runs[run].max = runs[run].chosen_max;
    __syncthreads();
  }
  const int token = choose(survey_of(row, runs, temperature), ask);
  for (int place = ask.seen_start + int(threadIdx.x); place < seen_end; place += THREADS)
    if (seen[place].token < unsigned(vocabulary)) own[seen[place].token] = saved[place];
  __syncthreads();
  if (threadIdx.x == 0) answer.token = token, answer.logit = own[token];
}
