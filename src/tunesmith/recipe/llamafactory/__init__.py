"""LLaMA-Factory's files: each key mapped to an option of ours, ignored with a reason, or refused.

The only place that knows its words. A file becomes a recipe, or the options of chat, serve and
export; nothing after it can tell.
"""
