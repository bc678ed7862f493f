// The pretend driver's streams, events, captures and graphs. Work handed to a stream runs at once; under capture it is kept with its arguments
// and runs when the graph is launched, so that a graph is proved to do what was done without it. Knows order; knows nothing of the work.
#include "pretend.hpp"
#include <algorithm>

using namespace pretend;

namespace pretend {

static thread_local CUstreamCaptureMode thread_mode = CU_STREAM_CAPTURE_MODE_GLOBAL;

CUresult find_stream(CUstream handle, Stream** stream) {
  PRETEND_TRY(need_context());
  Context* context = current();
  if (handle == nullptr || handle == CU_STREAM_LEGACY) return *stream = &context->legacy, CUDA_SUCCESS;
  if (handle == CU_STREAM_PER_THREAD) {
    auto& mine = context->per_thread[std::this_thread::get_id()];
    if (!mine) mine.reset(new Stream{context});
    return *stream = mine.get(), CUDA_SUCCESS;
  }
  *stream = driver().streams.find(handle);
  return *stream && (*stream)->context == context ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult refuse_capture(Stream* stream) {
  if (!stream->capture) return CUDA_SUCCESS;
  stream->capture->broken = true;
  return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult refuse_while_capturing() {
  if (thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) return CUDA_SUCCESS;
  bool refused = false;
  for (Capture* capture : driver().captures) {
    const bool mine = capture->owner == std::this_thread::get_id() && capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED;
    const bool global = capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL && thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
    if (mine || global) refused = capture->broken = true;
  }
  return refused ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

// The legacy stream waits for every blocking one, which a captured one cannot bear.
static CUresult refuse_legacy(Stream* stream) {
  if (stream != &stream->context->legacy) return CUDA_SUCCESS;
  bool refused = false;
  for (Capture* capture : driver().captures)
    for (auto& [other, progress] : capture->streams)
      if (other->context == stream->context && !(other->flags & CU_STREAM_NON_BLOCKING)) refused = capture->broken = true;
  return refused ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : CUDA_SUCCESS;
}

CUresult submit(CUstream handle, const std::string& what, Work work) {
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  PRETEND_TRY(refuse_legacy(stream));
  if (!stream->capture) return work();
  Capture& capture = *stream->capture;
  if (capture.broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (trace()) fprintf(stderr, "pretend cuda: captured %s\n", what.c_str());
  capture.graph.operations.push_back({what, std::move(work)});
  capture.streams[stream].given++;
  return CUDA_SUCCESS;
}

}  // namespace pretend

// ---- streams

PRETEND_API CUresult cuStreamCreateWithPriority(CUstream* handle, unsigned flags, int priority) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  if (flags & ~unsigned(CU_STREAM_NON_BLOCKING)) return CUDA_ERROR_INVALID_VALUE;
  *handle = reinterpret_cast<CUstream>(driver().streams.add(new Stream{current(), flags, priority}));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamCreate(CUstream* handle, unsigned flags) { return cuStreamCreateWithPriority(handle, flags, 0); }
PRETEND_API CUresult cuStreamDestroy_v2(CUstream handle) {
  auto guard = enter();
  Stream* stream = driver().streams.find(handle);
  if (!stream) return CUDA_ERROR_INVALID_HANDLE;
  if (stream->capture) {
    stream->capture->broken = true;
    stream->capture->streams.erase(stream);
  }
  driver().streams.remove(handle);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamGetPriority(CUstream handle, int* priority) {
  auto guard = enter();
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  *priority = stream->priority;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamGetFlags(CUstream handle, unsigned* flags) {
  auto guard = enter();
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  *flags = stream->flags;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamGetCtx(CUstream handle, CUcontext* context) {
  auto guard = enter();
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  *context = reinterpret_cast<CUcontext>(stream->context);
  return CUDA_SUCCESS;
}
// Everything is done when it was asked for; what is left of waiting is the question whether one may.
PRETEND_API CUresult cuStreamSynchronize(CUstream handle) {
  auto guard = enter();
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  PRETEND_TRY(refuse_legacy(stream));
  PRETEND_TRY(refuse_capture(stream));
  waited_for_copies(stream, num_pinned_copies());
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamQuery(CUstream handle) { return cuStreamSynchronize(handle); }
PRETEND_API CUresult cuCtxSynchronize() {
  auto guard = enter();
  PRETEND_TRY(need_context());
  bool refused = false;
  for (Capture* capture : driver().captures)
    if (capture->origin->context == current()) refused = capture->broken = true;
  if (refused) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  waited_for_copies(nullptr, num_pinned_copies());
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamAttachMemAsync(CUstream, CUdeviceptr, size_t, unsigned) { return need_context(); }
PRETEND_API CUresult cuLaunchHostFunc(CUstream stream, CUhostFn function, void* argument) {
  auto guard = enter();
  return submit(stream, "host function", [=] {
    function(argument);
    return CUDA_SUCCESS;
  });
}

// ---- events

PRETEND_API CUresult cuEventCreate(CUevent* handle, unsigned flags) {
  auto guard = enter();
  PRETEND_TRY(need_context());
  *handle = reinterpret_cast<CUevent>(driver().events.add(new Event{current(), flags}));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuEventDestroy_v2(CUevent handle) {
  auto guard = enter();
  return driver().events.remove(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}
PRETEND_API CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
  auto guard = enter();
  Stream* stream;
  PRETEND_TRY(find_stream(stream_handle, &stream));
  Event* event = driver().events.find(handle);
  if (!event || event->context != stream->context) return CUDA_ERROR_INVALID_HANDLE;
  PRETEND_TRY(refuse_legacy(stream));
  if (stream->capture && stream->capture->broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  event->recorded = true;
  event->when = std::chrono::steady_clock::now();
  event->capture = stream->capture;
  event->stream = stream;
  event->copies = num_pinned_copies();
  event->given = stream->capture ? stream->capture->streams[stream].given : 0;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned) { return cuEventRecord(event, stream); }
PRETEND_API CUresult cuEventSynchronize(CUevent handle) {
  auto guard = enter();
  Event* event = driver().events.find(handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (!event->capture) {
    if (event->recorded) waited_for_copies(event->stream, event->copies);
    return CUDA_SUCCESS;
  }
  event->capture->broken = true;
  return CUDA_ERROR_CAPTURED_EVENT;
}
PRETEND_API CUresult cuEventQuery(CUevent event) {
  auto guard = enter();
  PRETEND_TRY(refuse_while_capturing());
  return cuEventSynchronize(event);
}
PRETEND_API CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  auto guard = enter();
  Event *first = driver().events.find(start), *second = driver().events.find(end);
  if (!first || !second || !first->recorded || !second->recorded) return CUDA_ERROR_INVALID_HANDLE;
  if ((first->flags | second->flags) & CU_EVENT_DISABLE_TIMING) return CUDA_ERROR_INVALID_HANDLE;
  if (first->capture || second->capture) return CUDA_ERROR_CAPTURED_EVENT;
  *milliseconds = std::chrono::duration<float, std::milli>(second->when - first->when).count();
  return CUDA_SUCCESS;
}
#undef cuEventElapsedTime
PRETEND_API CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) { return cuEventElapsedTime_v2(milliseconds, start, end); }

// Under capture this is how one stream's work comes into another's graph, and back.
PRETEND_API CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned) {
  auto guard = enter();
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  Event* event = driver().events.find(event_handle);
  if (!event) return CUDA_ERROR_INVALID_HANDLE;
  if (!event->recorded) return CUDA_SUCCESS;
  PRETEND_TRY(refuse_legacy(stream));
  if (!event->capture) {
    if (!stream->capture) return CUDA_SUCCESS;
    stream->capture->broken = true;
    return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
  }
  Capture& capture = *event->capture;
  if (capture.ended) return CUDA_ERROR_CAPTURED_EVENT;
  if (stream->capture && stream->capture != event->capture) {
    stream->capture->broken = capture.broken = true;
    return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  }
  if (capture.broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (stream == &stream->context->legacy) return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  if (stream == event->stream) return CUDA_SUCCESS;
  stream->capture = event->capture;
  capture.streams[stream].given++;
  size_t& joined = capture.streams[event->stream].joined;
  joined = std::max(joined, event->given);
  return CUDA_SUCCESS;
}

// ---- capture

PRETEND_API CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode* mode) {
  std::swap(*mode, thread_mode);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode) {
  auto guard = enter();
  static unsigned long long count = 0;
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  if (stream == &stream->context->legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
  if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
  stream->capture.reset(new Capture{stream, mode, std::this_thread::get_id(), ++count, {}, {}});
  stream->capture->streams[stream] = {};
  driver().captures.insert(stream->capture.get());
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamEndCapture(CUstream handle, CUgraph* graph) {
  auto guard = enter();
  *graph = nullptr;
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
  if (capture->origin != stream) return capture->broken = true, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
  if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->owner != std::this_thread::get_id())
    return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
  bool unjoined = false;
  for (auto& [other, progress] : capture->streams) {
    unjoined |= other != stream && progress.joined < progress.given;
    other->capture = nullptr;
  }
  capture->ended = true;
  driver().captures.erase(capture.get());
  Graph whole = std::move(capture->graph);
  if (capture->broken) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (unjoined) return CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
  *graph = reinterpret_cast<CUgraph>(driver().graphs.add(new Graph(std::move(whole))));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus* status) {
  auto guard = enter();
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  PRETEND_TRY(refuse_legacy(stream));
  *status = !stream->capture ? CU_STREAM_CAPTURE_STATUS_NONE
      : stream->capture->broken ? CU_STREAM_CAPTURE_STATUS_INVALIDATED : CU_STREAM_CAPTURE_STATUS_ACTIVE;
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuStreamGetCaptureInfo_v3(CUstream handle, CUstreamCaptureStatus* status, cuuint64_t* id, CUgraph* graph,
                                               const CUgraphNode**, const CUgraphEdgeData**, size_t* num_dependencies) {
  auto guard = enter();
  PRETEND_TRY(cuStreamIsCapturing(handle, status));
  Stream* stream;
  PRETEND_TRY(find_stream(handle, &stream));
  if (id) *id = stream->capture ? stream->capture->id : 0;
  if (graph) *graph = nullptr;
  if (num_dependencies) *num_dependencies = 0;
  return CUDA_SUCCESS;
}

// ---- graphs

PRETEND_API CUresult cuGraphDestroy(CUgraph handle) {
  auto guard = enter();
  return driver().graphs.remove(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
// How many nodes there are; what they are is not told.
PRETEND_API CUresult cuGraphGetNodes(CUgraph handle, CUgraphNode* nodes, size_t* count) {
  auto guard = enter();
  Graph* graph = driver().graphs.find(handle);
  if (!graph) return CUDA_ERROR_INVALID_VALUE;
  if (nodes) return CUDA_ERROR_NOT_SUPPORTED;
  *count = graph->operations.size();
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuGraphInstantiateWithFlags(CUgraphExec* exec, CUgraph handle, unsigned long long flags) {
  auto guard = enter();
  Graph* graph = driver().graphs.find(handle);
  if (!graph) return CUDA_ERROR_INVALID_VALUE;
  const bool frees = flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH;
  *exec = reinterpret_cast<CUgraphExec>(driver().execs.add(new GraphExec{std::make_shared<const Graph>(*graph), frees}));
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuGraphExecDestroy(CUgraphExec handle) {
  auto guard = enter();
  return driver().execs.remove(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
// Only a graph of the same operations in the same order may take another's place.
PRETEND_API CUresult cuGraphExecUpdate_v2(CUgraphExec handle, CUgraph graph_handle, CUgraphExecUpdateResultInfo* info) {
  auto guard = enter();
  GraphExec* exec = driver().execs.find(handle);
  Graph* graph = driver().graphs.find(graph_handle);
  if (!exec || !graph) return CUDA_ERROR_INVALID_VALUE;
  *info = {};
  const auto same = [](const Operation& mine, const Operation& yours) { return mine.what == yours.what; };
  const auto &mine = exec->graph->operations, &yours = graph->operations;
  if (!std::equal(mine.begin(), mine.end(), yours.begin(), yours.end(), same)) {
    info->result = CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    return CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;
  }
  exec->graph = std::make_shared<const Graph>(*graph);
  return CUDA_SUCCESS;
}
PRETEND_API CUresult cuGraphUpload(CUgraphExec handle, CUstream) {
  auto guard = enter();
  return driver().execs.find(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
PRETEND_API CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream) {
  auto guard = enter();
  GraphExec* exec = driver().execs.find(handle);
  if (!exec) return CUDA_ERROR_INVALID_VALUE;
  return submit(stream, "graph", [graph = exec->graph, frees = exec->frees_on_launch] {
    if (trace()) fprintf(stderr, "pretend cuda: a graph of %zu operations\n", graph->operations.size());
    for (const auto& memory : graph->memory) {
      if (memory->alive && !frees) return CUDA_ERROR_INVALID_VALUE;
      memory->alive = false;
    }
    for (const Operation& operation : graph->operations) PRETEND_TRY(operation.work());
    return CUDA_SUCCESS;
  });
}
