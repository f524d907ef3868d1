import json
from math import exp, log, sqrt

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import BertConfig, BertLMHeadModel, GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from embinv.metrics.perplexity import load_language_model, perplexity

WORDS = "anna ben carla paid owes two coins books in on".split()
VOCABULARY = len(WORDS) + 1  # and the unknown word
POSITIONS = 12
TEXTS = ["anna paid two coins", "ben owes carla two books on two books", "coins in", "carla paid", "books on books"]


def save_tokenizer(folder):
    backend = Tokenizer(WordLevel({"[UNK]": 0} | {word: 1 + i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]").save_pretrained(folder)


def save_gpt2(folder, scale=1.0, vocab_size=VOCABULARY):
    """A tiny GPT-2 with random weights, large enough that what it says depends on what it reads."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=vocab_size, n_positions=POSITIONS, n_embd=8, n_layer=2, n_head=2, bos_token_id=0)
    ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(scale * torch.randn(parameter.shape))
    model.save_pretrained(folder)
    save_tokenizer(folder)
    return model


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpt2")
    return save_gpt2(folder), load_language_model(str(folder))


def by_hand(model, text):
    """Negative log-likelihood of each word but the first, the text read alone and up to that word only."""
    ids = [1 + WORDS.index(word) for word in text.split()]
    losses = []
    for place in range(1, len(ids)):
        with torch.no_grad():
            probability = model(torch.tensor([ids[:place]])).logits[0, -1].double().softmax(dim=0)
        losses.append(-log(probability[ids[place]]))
    return losses


@pytest.mark.parametrize("batch", [1, 2, 8])
def test_perplexity_is_that_of_every_word_predicted_by_hand_whatever_stands_beside_it_in_a_batch(gpt2, batch):
    losses = [by_hand(gpt2[0], text) for text in TEXTS]
    sums, counts = np.array([sum(each) for each in losses]), np.array([len(each) for each in losses])
    mean = sums.sum() / counts.sum()
    measured = perplexity(TEXTS, gpt2[1], batch=batch)
    assert measured.figure.value == pytest.approx(exp(mean), rel=1e-4)
    residual = ((sums - mean * counts) ** 2).sum() / (len(TEXTS) - 1)
    error = sqrt(residual / len(TEXTS)) / counts.mean()
    assert measured.figure.standard_error == pytest.approx(exp(mean) * error, rel=1e-3)
    assert (measured.figure.n, measured.tokens, measured.left_out) == (len(TEXTS), counts.sum(), 0)


def test_standard_error_agrees_with_a_bootstrap_over_texts(gpt2):
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=rng.integers(6, POSITIONS + 1))) for _ in range(300)]
    losses = [np.log(perplexity([text] * 2, gpt2[1]).figure.value) for text in texts]  # means of single texts
    counts = np.array([len(text.split()) - 1 for text in texts])
    draws = rng.integers(0, 300, size=(2000, 300))
    means = (np.array(losses) * counts)[draws].sum(axis=1) / counts[draws].sum(axis=1)
    assert perplexity(texts, gpt2[1], batch=64).figure.standard_error == pytest.approx(np.exp(means).std(), rel=0.15)


def test_model_that_knows_nothing_is_as_perplexed_as_its_vocabulary_is_large(tmp_path):
    save_gpt2(tmp_path, scale=0.0)
    figure = perplexity(TEXTS, load_language_model(str(tmp_path))).figure
    assert figure.value == pytest.approx(VOCABULARY, rel=1e-5)
    assert figure.standard_error == pytest.approx(0.0, abs=1e-4)


def test_texts_of_fewer_than_two_tokens_are_left_out_and_counted(gpt2):
    whole, with_short = perplexity(TEXTS, gpt2[1]), perplexity(["", "anna", *TEXTS, " "], gpt2[1])
    assert (whole.left_out, with_short.left_out) == (0, 3)
    assert with_short.figure.value == pytest.approx(whole.figure.value)
    assert with_short.figure.n == len(TEXTS)


@pytest.mark.parametrize("texts", [[], ["anna paid"], ["anna paid", "ben", ""]])
def test_fewer_than_two_texts_that_can_be_measured_have_no_perplexity(gpt2, texts):
    with pytest.raises(ValueError, match="at least 2 texts of 2 tokens"):
        perplexity(texts, gpt2[1])


def test_text_longer_than_the_model_reads_is_refused_and_named(gpt2):
    longest = " ".join(["anna"] * POSITIONS)
    assert perplexity([longest, longest], gpt2[1]).tokens == 2 * (POSITIONS - 1)
    with pytest.raises(ValueError, match=f"text 1 has {POSITIONS + 1} tokens .* reads {POSITIONS}; shorten it"):
        perplexity([longest, longest + " paid"], gpt2[1])


def test_model_without_finite_logits_has_no_perplexity(tmp_path):
    save_gpt2(tmp_path, scale=float("nan"))
    with pytest.raises(ValueError, match="not finite"):
        perplexity(TEXTS, load_language_model(str(tmp_path)))


def refusal(folder):
    """What loading says: one line, one sentence."""
    with pytest.raises(ValueError, match="cannot be used") as refused:
        load_language_model(str(folder))
    message = str(refused.value)
    assert "\n" not in message and ". " not in message and str(folder) in message
    return message


def test_empty_folder_is_refused_in_one_sentence(tmp_path):
    refusal(tmp_path)


def test_pickled_weights_are_not_read(tmp_path):
    model = save_gpt2(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    assert "safetensors" in refusal(tmp_path)


def test_damaged_weights_are_refused_in_one_sentence(tmp_path):
    save_gpt2(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    refusal(tmp_path)


def test_code_of_a_models_folder_is_not_run(tmp_path):
    save_gpt2(tmp_path)
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n", encoding="utf-8")
    own = {"AutoConfig": "own.Config", "AutoModelForCausalLM": "own.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": own}), encoding="utf-8")
    refusal(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_model_that_reads_what_it_should_predict_is_refused(tmp_path):
    torch.manual_seed(0)
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    BertLMHeadModel(BertConfig(vocab_size=VOCABULARY, initializer_range=1.0, **shape)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    assert "it reads the tokens that it should predict" in refusal(tmp_path)


def test_tokenizer_with_ids_that_the_model_does_not_know_is_refused(tmp_path):
    save_gpt2(tmp_path, vocab_size=VOCABULARY - 1)
    assert f"has {VOCABULARY} ids and its token embedding {VOCABULARY - 1}" in refusal(tmp_path)
