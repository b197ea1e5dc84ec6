"""`cache_config_info`: vLLM's cache configuration, with the values that the simulator has."""

from tidegate.simulator.engine.settings import EngineSettings

# What is not simulated stands as vLLM has it where nobody sets it.
_AS_USUAL: dict[str, object] = {
    "_block_size_resolved": True,
    "cache_dtype": "auto",
    "cache_hit_alignment_tokens": None,
    "enable_mamba_shared_prefix_checkpoint": False,
    "gpu_memory_utilization": 0.92,
    "is_attention_free": False,
    "kv_cache_dtype_skip_layers": [],
    "kv_cache_layout": None,
    "kv_cache_memory_bytes": None,
    "kv_offloading_backend": "native",
    "kv_offloading_size": None,
    "kv_sharing_fast_prefill": False,
    "mamba_block_size": None,
    "mamba_cache_dtype": "auto",
    "mamba_cache_mode": "none",
    "mamba_page_size_padded": None,
    "mamba_ssm_cache_dtype": "auto",
    "num_cpu_blocks": None,
    "num_gpu_blocks_override": None,
    "prefix_cache_retention_interval": 0,
    "prefix_caching_hash_algo": "sha256",
    "prefix_match_unit": None,
    "replayssm_buffer_len": 16,
    "skip_page_size_padded": None,
    "sliding_window": None,
    "swa_bounded_replay": True,
    "use_kda_recoverssm": False,
    "use_replayssm": False,
    "user_specified_block_size": True,
}


def cache_settings(size: EngineSettings) -> dict[str, object]:
    """Return the labels and their values."""
    tokens = size.kv_blocks * size.block_size
    return _AS_USUAL | {
        "block_size": size.block_size,
        "effective_attention_block_size": size.block_size,
        "enable_prefix_caching": size.prefix_caching,
        "hash_block_size": size.block_size,
        "kv_cache_max_concurrency": tokens / size.max_model_len,
        "kv_cache_size_tokens": tokens,
        "num_gpu_blocks": size.kv_blocks,
    }
