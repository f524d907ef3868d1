import math

import torch

from embinv.training.settings import TrainingSettings
from embinv.training.step import step_generator, to_tensors, training_loss


def test_each_seed_step_and_rank_has_its_own_draws_found_again_without_replay():
    def draw(*place):
        return torch.rand(4, generator=step_generator(*place)).tolist()

    places = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (1, 1, 0), (0, 10**6, 7)]
    assert len({tuple(draw(*place)) for place in places}) == len(places)
    assert draw(3, 5, 1) == draw(3, 5, 1)


def test_rows_become_tensors_of_the_types_that_the_model_takes(toy):
    x_0, embedding = to_tensors(toy.pairs, [3, 1], torch.device("cpu"))
    assert (x_0.dtype, embedding.dtype) == (torch.int64, torch.float32)
    assert x_0.tolist() == toy.pairs.token_ids[[3, 1]].tolist()
    assert torch.equal(embedding, torch.from_numpy(toy.pairs.embeddings[[3, 1]]).float())


def test_model_is_asked_at_the_hidden_positions_and_sees_no_hidden_token(toy):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw"))
    seen = []

    class Watching(type(engine)):
        def forward(self, z_t, embedding, positions):
            seen.append((z_t, positions))
            return super().forward(z_t, embedding, positions)

    watching = Watching(engine.model, engine.optimizer)
    x_0, embedding = to_tensors(toy.pairs, range(20), torch.device("cpu"))
    training_loss(watching, x_0, embedding, toy.ids.mask_id, "nelbo", step_generator(0, 0, 0))
    [(z_t, positions)] = seen
    assert torch.equal(positions, z_t == toy.ids.mask_id)
    assert torch.equal(z_t[~positions], x_0[~positions])
    ends = torch.isin(x_0, torch.tensor([toy.ids.eos_id, toy.ids.pad_id]))
    assert (positions & ends).any()
    assert (~positions & ends).any()


def test_loss_of_a_uniform_model_is_log_v_whatever_the_draws(toy):
    engine, _ = toy.start(TrainingSettings(optimizer="adamw"))
    with torch.no_grad():
        engine.model.token_embedding.weight.zero_()
    x_0, embedding = to_tensors(toy.pairs, range(20), torch.device("cpu"))
    losses = [
        training_loss(engine, x_0, embedding, toy.ids.mask_id, "uniform", step_generator(0, step, 0)).item()
        for step in range(200)
    ]
    mean = sum(losses) / len(losses)
    error = torch.tensor(losses).std().item() / len(losses) ** 0.5
    # E[weight x t] over [1e-3, 1] is 1.001 for the uniform weight
    assert abs(mean - 1.001 * math.log(toy.tokenizer.vocab_size)) < 4 * error
