from dataclasses import replace
from functools import partial

import numpy as np
import torch

from embinv.training.examples import EXAMPLES, recover_examples
from embinv.training.objective import OBJECTIVES
from tests.fakes import OracleDenoiser

CPU = torch.device("cpu")


def oracle(toy):
    x_0 = torch.from_numpy(toy.pairs.token_ids).long()
    return OracleDenoiser(torch.from_numpy(toy.pairs.embeddings).float(), x_0, toy.tokenizer.vocab_size)


def read(toy):
    return lambda ids: [toy.tokenizer.decode(row) for row in ids.tolist()]


def test_first_eight_texts_are_recovered_from_their_vectors(toy):
    examples = recover_examples(partial(OBJECTIVES["mdlm"].decode, oracle(toy)), toy.pairs, read(toy), toy.ids, 3, CPU)
    assert EXAMPLES == 8
    assert [example.id for example in examples] == toy.pairs.ids[:8].tolist()
    assert [example.original for example in examples] == toy.pairs.texts[:8]
    assert [example.recovered for example in examples] == toy.pairs.texts[:8]


def test_what_is_recovered_comes_from_the_vector_and_not_from_the_text(toy):
    denoiser = oracle(toy)
    denoiser.x_0 = denoiser.x_0.roll(1, dims=0)
    examples = recover_examples(partial(OBJECTIVES["mdlm"].decode, denoiser), toy.pairs, read(toy), toy.ids, 3, CPU)
    assert [example.recovered for example in examples[1:]] == toy.pairs.texts[:7]
    assert [example.original for example in examples] == toy.pairs.texts[:8]


def test_passes_are_as_many_as_were_asked_for(toy):
    calls = []
    for steps in (1, 3, 5):
        denoiser = oracle(toy)
        recover_examples(partial(OBJECTIVES["mdlm"].decode, denoiser), toy.pairs, read(toy), toy.ids, steps, CPU)
        calls.append(denoiser.calls)
    assert calls == [1, 3, 5]


def test_fewer_texts_than_eight_are_all_shown(toy):
    pairs = toy.pairs.take(np.array([4, 2]))
    examples = recover_examples(partial(OBJECTIVES["mdlm"].decode, oracle(toy)), pairs, read(toy), toy.ids, 2, CPU)
    assert [example.recovered for example in examples] == [toy.pairs.texts[4], toy.pairs.texts[2]]


def test_id_of_tokens_left_out_is_never_written(toy):
    denoiser = oracle(toy)
    other = int(denoiser.x_0[0, 0])
    free = recover_examples(partial(OBJECTIVES["mdlm"].decode, denoiser), toy.pairs, read(toy), toy.ids, 3, CPU)
    barred = recover_examples(
        partial(OBJECTIVES["mdlm"].decode, denoiser), toy.pairs, read(toy), replace(toy.ids, other_id=other), 3, CPU
    )
    word = toy.tokenizer.decode([other])
    assert word in free[0].recovered.split()
    assert all(word not in example.recovered.split() for example in barred)
