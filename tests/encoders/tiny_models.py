"""Encoders of the shipped families, tiny and with random weights, in the layout in which the hub has the real ones.

Each function fills a folder as the repository of its model is filled: modules.json, the backbone's config and weights,
tokenizer.json, 1_Pooling, Dense modules with their weights, config_sentence_transformers.json with the model's own
prompts. Vectors mean nothing; how they come about is the real models'.

H hidden, D embedding.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    Gemma3TextConfig,
    Gemma3TextModel,
    JinaEmbeddingsV3Config,
    JinaEmbeddingsV3Model,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3Model,
    XLMRobertaConfig,
    XLMRobertaModel,
)

HIDDEN = 32
SENTENCES = [
    "Dr. Weber moved the appointment to May 4.",
    "The payment of 1,200 EUR from ACME Corp. was returned.",
    "Anna Müller wohnt seit 2019 in Köln.",
    "Она пишет письмо своему брату.",
    "彼女は毎朝コーヒーを飲みます。",
    "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
    "title: none | text: task: search result | query: Represent the document for retrieval: ",
]
QWEN3_PROMPTS = {
    "query": "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:",
    "document": "",
}
GEMMA_PROMPTS = {
    "query": "task: search result | query: ",
    "document": "title: none | text: ",
    "Retrieval-document": "title: none | text: ",
}
JINA_PROMPTS = {
    "retrieval.query": "Represent the query for retrieving evidence documents: ",
    "retrieval.passage": "Represent the document for retrieval: ",
    "text-matching": "",
}
# What jina-embeddings-v3 brings along as custom_st.py: a Transformer module whose forward takes a task. Here a task
# moves every token by a vector of its own.
CUSTOM_MODULE = """
from sentence_transformers.models import Transformer as Backbone


class Transformer(Backbone):
    def forward(self, features, task=None, **kwargs):
        features = super().forward(features)
        shift = {None: 0.0, "retrieval.passage": 0.5, "retrieval.query": -0.5}[task]
        features["token_embeddings"] = features["token_embeddings"] + shift
        return features
"""


def tiny_qwen3(folder, padding_side="left"):
    """Qwen3-Embedding: byte-level BPE that ends each text with <|endoftext|>, left padding, last token, L2."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|endoftext|>", "<|im_end|>"]
    backend.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    end = "<|endoftext|>"
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single=f"$A {end}", special_tokens=[(end, backend.token_to_id(end))]),
        ]
    )
    config = Qwen3Config(
        vocab_size=backend.get_vocab_size(),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        max_position_embeddings=512,
        initializer_range=0.3,
    )
    _write_backbone(folder, Qwen3Model, config)
    _write_tokenizer(folder, backend, padding_side, pad_token=end, eos_token="<|im_end|>")
    _write_modules(folder, "lasttoken", [], QWEN3_PROMPTS, max_seq_length=512)


def tiny_embeddinggemma(folder):
    """EmbeddingGemma: <bos> text <eos>, attention in both directions, mean, Dense H -> 4 H -> H, L2."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Replace("▁", " ")
    backend.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=300, special_tokens=["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"], show_progress=False
        ),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 2), ("<eos>", 1)]
    )
    config = Gemma3TextConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=256,
        query_pre_attn_scalar=8,
        sliding_window=8,
        layer_types=["sliding_attention", "full_attention"],
        use_bidirectional_attention=True,
        initializer_range=0.3,
    )
    _write_backbone(folder, Gemma3TextModel, config)
    _write_tokenizer(
        folder, backend, "right", pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    _write_modules(folder, "mean", [(HIDDEN, 4 * HIDDEN), (4 * HIDDEN, HIDDEN)], GEMMA_PROMPTS, max_seq_length=256)


def tiny_jina_v3_with_code(folder):
    """jina-embeddings-v3 as its own repository ships it: XLM-R, mean, L2, and code of its own that takes a task."""
    backend = _xlm_roberta_tokenizer()
    config = XLMRobertaConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=130,
        type_vocab_size=1,
        initializer_range=0.3,
    )
    _write_backbone(folder, XLMRobertaModel, config)
    _write_xlm_roberta_tokenizer(folder, backend)
    _write_modules(folder, "mean", [], JINA_PROMPTS, max_seq_length=128)
    modules = json.loads((Path(folder) / "modules.json").read_text())
    modules[0] |= {"type": "custom_st.Transformer", "kwargs": ["task"]}
    _write_json(Path(folder) / "modules.json", modules)
    (Path(folder) / "custom_st.py").write_text(CUSTOM_MODULE)


def tiny_jina_v3_native(folder):
    """jina-embeddings-v3 as transformers has it: rotary XLM-R, one LoRA adapter a task, each in a folder of its name.

    Needs the package peft.
    """
    from peft import LoraConfig, get_peft_model

    backend = _xlm_roberta_tokenizer()
    config = JinaEmbeddingsV3Config(
        vocab_size=backend.get_vocab_size(),
        hidden_size=HIDDEN,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=130,
        initializer_range=0.3,
    )
    model = _write_backbone(folder, JinaEmbeddingsV3Model, config)
    _write_xlm_roberta_tokenizer(folder, backend)
    for task in ("retrieval_passage", "text_matching"):
        torch.manual_seed(len(task))
        lora = LoraConfig(r=4, lora_alpha=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
        adapted = get_peft_model(model, lora)
        adapted.save_pretrained(str(Path(folder) / task))
        model = adapted.unload()


def _xlm_roberta_tokenizer():
    backend = Tokenizer(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend.train_from_iterator(
        SENTENCES,
        trainers.UnigramTrainer(vocab_size=200, special_tokens=special, unk_token="<unk>", show_progress=False),
    )
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return backend


def _write_xlm_roberta_tokenizer(folder, backend):
    names = {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    _write_tokenizer(folder, backend, "right", pad_token="<pad>", unk_token="<unk>", mask_token="<mask>", **names)


def _write_backbone(folder, model_class, config):
    torch.manual_seed(0)
    model = model_class(config).eval()
    model.save_pretrained(str(folder))
    return model


def _write_tokenizer(folder, backend, padding_side, **special):
    # The real files switch padding on for whoever reads them bare.
    backend.enable_padding(pad_id=backend.token_to_id(special["pad_token"]), pad_token=special["pad_token"])
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, padding_side=padding_side, **special)
    fast.save_pretrained(str(folder))


def _write_modules(folder, pooling, dense, prompts, max_seq_length):
    folder = Path(folder)
    names = ["Transformer", "Pooling", *["Dense"] * len(dense), "Normalize"]
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": f"{i}_{name}" if i else "",
            "type": f"sentence_transformers.models.{name}",
        }
        for i, name in enumerate(names)
    ]
    _write_json(folder / "modules.json", modules)
    _write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
    own = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    _write_json(folder / "config_sentence_transformers.json", own)
    modes = {"lasttoken": "pooling_mode_lasttoken", "mean": "pooling_mode_mean_tokens"}
    flags = {"word_embedding_dimension": HIDDEN, "pooling_mode_cls_token": False, "include_prompt": True}
    _write_json(folder / "1_Pooling/config.json", flags | {flag: mode == pooling for mode, flag in modes.items()})
    for i, (inward, outward) in enumerate(dense, start=2):
        sizes = {"in_features": inward, "out_features": outward, "bias": False}
        activation = {"activation_function": "torch.nn.modules.linear.Identity"}
        _write_json(folder / f"{i}_Dense/config.json", sizes | activation)
        generator = torch.Generator().manual_seed(i)
        weight = torch.randn((outward, inward), generator=generator) / inward**0.5
        save_file({"linear.weight": weight}, str(folder / f"{i}_Dense/model.safetensors"))


def _write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
