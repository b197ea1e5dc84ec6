"""The names of vLLM's metrics: what each family is, and how its values fall into buckets."""

from tidegate.simulator.metrics.histogram import (
    CHOICES,
    PREEMPTIONS,
    TIMES_BETWEEN,
    TIMES_OF_REQUESTS,
    TIMES_TO_FIRST,
    TOKENS_OF_STEPS,
)

LENGTHS = None  # Buckets that follow from the model's length.
_TRANSFERRED = (
    "External prefix cache {} from KV connector cross-instance cache sharing, in terms of number "
    "of {} tokens."
)

GAUGES = {
    "num_requests_running": "Number of requests in model execution batches.",
    "num_requests_waiting": "Number of requests waiting to be processed.",
    "num_requests_waiting_by_reason": "Number of requests waiting to be processed, by reason.",
    "num_requests_kv_fetch_by_stage": "Number of waiting requests by stage of their KV load.",
    "engine_sleep_state": "Engine sleep state; the one that holds is 1.",
    "kv_cache_usage_perc": "KV-cache usage. 1 means 100 percent usage.",
    "cache_config_info": "Information of the LLMEngine CacheConfig",
    "lora_requests_info": "Running stats on lora requests.",
}
COUNTERS = {
    "prefix_cache_queries": "Prefix cache queries, in terms of number of queried tokens.",
    "prefix_cache_hits": "Prefix cache hits, in terms of number of cached tokens.",
    "external_prefix_cache_queries": _TRANSFERRED.format("queries", "queried"),
    "external_prefix_cache_hits": _TRANSFERRED.format("hits", "cached"),
    "mm_cache_queries": "Multi-modal cache queries, in terms of number of queried items.",
    "mm_cache_hits": "Multi-modal cache hits, in terms of number of cached items.",
    "num_preemptions": "Cumulative number of preemption from the engine.",
    "prompt_tokens": "Number of prefill tokens processed.",
    "prompt_tokens_by_source": "Number of prompt tokens by source.",
    "prompt_tokens_cached": "Number of cached prompt tokens (local + external).",
    "prompt_tokens_cached_by_source": "Number of cached prompt tokens by source.",
    "generation_tokens": "Number of generation tokens processed.",
    "request_success": "Count of successfully processed requests.",
    "admission_rejections": "Number of requests rejected before they were queued.",
    "estimated_flops_per_gpu": "Estimated number of flops per GPU.",
    "estimated_read_bytes_per_gpu": "Estimated number of read bytes per GPU.",
    "estimated_write_bytes_per_gpu": "Estimated number of write bytes per GPU.",
}
HISTOGRAMS: dict[str, tuple[tuple[float, ...] | None, str]] = {
    "request_prompt_tokens": (LENGTHS, "Number of prefill tokens processed."),
    "request_generation_tokens": (LENGTHS, "Number of generation tokens processed."),
    "iteration_tokens_total": (TOKENS_OF_STEPS, "Histogram of number of tokens per engine_step."),
    "request_max_num_generation_tokens": (
        LENGTHS,
        "Histogram of maximum number of requested generation tokens.",
    ),
    "request_params_n": (CHOICES, "Histogram of the n request parameter."),
    "request_params_max_tokens": (LENGTHS, "Histogram of the max_tokens request parameter."),
    "time_to_first_token_seconds": (TIMES_TO_FIRST, "Histogram of time to first token in seconds."),
    "inter_token_latency_seconds": (TIMES_BETWEEN, "Histogram of inter-token latency in seconds."),
    "request_time_per_output_token_seconds": (
        TIMES_BETWEEN,
        "Histogram of time_per_output_token_seconds per request.",
    ),
    "e2e_request_latency_seconds": (
        TIMES_OF_REQUESTS,
        "Histogram of e2e request latency in seconds.",
    ),
    "request_queue_time_seconds": (
        TIMES_OF_REQUESTS,
        "Histogram of time spent in WAITING phase for request.",
    ),
    "request_inference_time_seconds": (
        TIMES_OF_REQUESTS,
        "Histogram of time spent in RUNNING phase for request.",
    ),
    "request_prefill_time_seconds": (
        TIMES_OF_REQUESTS,
        "Histogram of time spent in PREFILL phase for request.",
    ),
    "request_decode_time_seconds": (
        TIMES_OF_REQUESTS,
        "Histogram of time spent in DECODE phase for request.",
    ),
    "request_num_preemptions": (PREEMPTIONS, "Histogram of the number of preemptions per request."),
    "request_prefill_kv_computed_tokens": (
        LENGTHS,
        "Histogram of new KV tokens computed during prefill (excluding cached tokens).",
    ),
}
