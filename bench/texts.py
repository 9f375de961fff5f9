"""Texts for load runs: distinct, of a given kind, the same on every machine."""

from __future__ import annotations

import random

ZH = (
    "我们在这个项目里使用向量检索来回答用户的问题并且把文档分成小段落然后计算每一段的语义表示"
    "系统需要在高并发的情况下保持稳定的延迟同时尽量减少内存占用提高吞吐量今天天气很好适合散步"
    "请问如何申请退款以及查询物流信息人工智能正在改变人们的工作方式医院学校公司政府城市乡村"
)
EN_WORDS = """
the quick model turns a short text into a vector so that similar questions land close to each other
search engine answers customer support ticket about late delivery and refund of an order placed online
weather city music garden river mountain computer science history language people time year world house
"""
EN = EN_WORDS.split()

KINDS = {
    "zh30": "about thirty Chinese characters",
    "en20": "English, 20 tokens",
    "en200": "English, 200 tokens",
}


def make(kind: str, count: int = 2000, seed: int = 20260101) -> list[str]:
    """`count` distinct texts of a kind named in KINDS."""
    rng = random.Random(f"{kind}-{seed}")
    if kind == "zh30":
        return ["".join(rng.choices(ZH, k=rng.randint(27, 33))) for _ in range(count)]
    words = {"en20": 18, "en200": 198}[kind]  # these are whole words of the vocabulary; two special tokens
    return [" ".join(rng.choices(EN, k=words)) for _ in range(count)]
