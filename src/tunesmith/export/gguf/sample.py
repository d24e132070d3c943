"""Texts that tokenizers cut in different ways: where they agree, they agree on most.

None has combining marks, which llama.cpp cuts at for tekken and gpt-4o: whether that matters, the
run's own prompts tell.
"""

SAMPLE = (
    "I'm sure they'll say it's HERE'S, you've, we'd, don't; O'Neill's DON'T.",
    "1 22 333 4444 55555 3.14 1,000,000 2026-02-03 v1.2.3 0x1F",
    "  two spaces,   three,\ttab,\n\none empty line \n and a blank before it\r\n    indented\n",
    "def f(x): return x[0] + {'a': 1}['a']  # ==> !!! ... ??? <b>&amp;</b> a_b CamelCase",
    "请问营业时间是什么？早上九点到晚上十点。价格：人民币３８元",
    "日本語のテキスト、カタカナ。한국어 텍스트 Привет, мир! مرحبا بالعالم",
    "café naïve Ünïcödé Straße œuvre Åland – “quoted” … €5 ½ ²",
    "emoji 😀👩‍👩‍👧‍👦🇩🇪 and math ∑∫√ ≤ ≠ →",
)
