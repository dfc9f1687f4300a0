"""The framework of a stage: its settings, shards, backends and random generators."""
