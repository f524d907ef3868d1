"""A T5 that reads an embedding in place of a text: the inverter of the vec2text family.

An embedding becomes R pseudo-tokens, which T5's encoder reads, and its decoder writes the text from left to right
(Morris et al., 2023, "Text Embeddings Reveal (Almost) As Much As Text", section 4).

Shapes: B batch, L length, D embedding, R pseudo-tokens, H hidden.
"""

from torch import Tensor, nn

from embinv.models.inverter_model import require_dim, scale_to_unit_rms
from embinv.models.t5_settings import T5InverterConfig
from embinv.models.t5_writer import T5Writer


class T5Inverter(T5Writer[T5InverterConfig]):
    """Embedding [B, D] in, text out.

    Args:
        config: the complete architecture.

    Attributes:
        embedding_transform: D -> D -> R x H.
    """

    def __init__(self, config: T5InverterConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_transform = embedding_transform(config)
        self.take_t5(config)

    def pseudo_tokens(self, embedding: Tensor) -> Tensor:
        """What the encoder reads [B, R, H] in place of the text's tokens.

        Raises:
            ValueError: D is not the model's.
        """
        require_dim(embedding, self.config.embedding_dim)
        vector = scale_to_unit_rms(embedding) if self.config.unit_rms else embedding.float()
        return transformed(self.embedding_transform, vector, self.config.pseudo_tokens)

    def read(self, embedding: Tensor, hypothesis: Tensor | None = None) -> tuple[Tensor, None]:
        assert hypothesis is None, "an inverter reads no hypothesis"
        return self.encoder_decoder.encoder(inputs_embeds=self.pseudo_tokens(embedding)).last_hidden_state, None

    def hidden_states(self, token_ids: Tensor, embedding: Tensor) -> Tensor:
        """The decoder's states [B, L, H] before each token of a text, which see the vector and the tokens before it.

        Args:
            token_ids: [B, L] int64; EOS, then PAD behind the text.
            embedding: [B, D].
        """
        return self.states(token_ids, *self.read(embedding))


def embedding_transform(config: T5InverterConfig) -> nn.Sequential:
    """A vector's way to pseudo-tokens: D -> D -> R x H."""
    dim = config.embedding_dim
    return nn.Sequential(
        nn.Linear(dim, dim),
        nn.Dropout(config.dropout),
        nn.GELU(),
        nn.Linear(dim, config.pseudo_tokens * config.hidden),
    )


def transformed(transform: nn.Sequential, vector: Tensor, pseudo_tokens: int) -> Tensor:
    """Pseudo-tokens [B, R, H] of vectors [B, D], in the precision of the weights."""
    vector = vector.to(next(transform.parameters()).dtype)
    return transform(vector).view(len(vector), pseudo_tokens, -1)
