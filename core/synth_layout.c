/* SPDX-License-Identifier: Apache-2.0 */
#include "core/synth.h"
#include "core/synth_internal.h"
#include "core/units.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Dimensions as published in the config.json of each model. */
struct architecture {
  const char *name;
  const char *class_name; /* "architectures" of config.json */
  const char *model_type;
  uint32_t hidden, intermediate, layers, heads, kv_heads, head_dim, vocabulary;
  bool tied_embeddings;
  bool qkv_bias;
  bool qk_norm;
  bool saves_head; /* lm_head.weight is in the files although it is tied */
};

static const struct architecture decoders[] = {
    {"tiny", "LlamaForCausalLM", "llama", 64, 192, 4, 4, 2, 16, 1000, false, false, false, false},
    {"smollm2-135m", "LlamaForCausalLM", "llama", 576, 1536, 30, 9, 3, 64, 49152, true, false,
     false, false},
    {"qwen2.5-0.5b", "Qwen2ForCausalLM", "qwen2", 896, 4864, 24, 14, 2, 64, 151936, true, true,
     false, false},
    {"qwen3-0.6b", "Qwen3ForCausalLM", "qwen3", 1024, 3072, 28, 16, 8, 128, 151936, true, false,
     true, true},
    {"llama-3.2-1b", "LlamaForCausalLM", "llama", 2048, 8192, 16, 32, 8, 64, 128256, true, false,
     false, false},
    {"llama-3.1-8b", "LlamaForCausalLM", "llama", 4096, 14336, 32, 32, 8, 128, 128256, false, false,
     false, false},
};

#define BERT_NAME "all-minilm-l6-v2"
#define DECODER_COUNT (sizeof decoders / sizeof decoders[0])
#define BF16_BYTES 2u

const char *synth_names(void) {
  return "tiny, smollm2-135m, qwen2.5-0.5b, qwen3-0.6b, llama-3.2-1b, llama-3.1-8b, " BERT_NAME
         ", size:SIZE, tensors:COUNTxSIZE";
}

static SPROUT_MUST_CHECK enum sprout_status add(struct synth_layout *layout, const char *name,
                                                const char *dtype, uint32_t element_bytes,
                                                uint64_t rows, uint64_t columns) {
  if (layout->count == layout->capacity) {
    size_t capacity = layout->capacity ? layout->capacity * 2 : 64;
    struct synth_tensor *grown = realloc(layout->tensors, capacity * sizeof *grown);
    if (!grown) return SPROUT_NO_MEMORY;
    layout->tensors = grown;
    layout->capacity = capacity;
  }
  struct synth_tensor *tensor = &layout->tensors[layout->count++];
  snprintf(tensor->name, sizeof tensor->name, "%s", name);
  tensor->dtype = dtype;
  tensor->rank = columns ? 2 : 1;
  tensor->shape[0] = rows;
  tensor->shape[1] = columns;
  tensor->length_bytes = rows * (columns ? columns : 1) * element_bytes;
  layout->total_bytes += tensor->length_bytes;
  return SPROUT_OK;
}

struct part {
  const char *name;
  uint64_t rows, columns;
  bool wanted;
};

static SPROUT_MUST_CHECK enum sprout_status add_parts(struct synth_layout *layout,
                                                      const char *prefix, const char *dtype,
                                                      uint32_t element_bytes,
                                                      const struct part *parts, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (!parts[i].wanted) continue;
    char name[SYNTH_NAME_BYTES];
    snprintf(name, sizeof name, "%s%s", prefix, parts[i].name);
    enum sprout_status status =
        add(layout, name, dtype, element_bytes, parts[i].rows, parts[i].columns);
    if (status != SPROUT_OK) return status;
  }
  return SPROUT_OK;
}

static SPROUT_MUST_CHECK enum sprout_status
add_decoder_layer(struct synth_layout *layout, const struct architecture *a, uint32_t number) {
  uint64_t q = (uint64_t)a->heads * a->head_dim, kv = (uint64_t)a->kv_heads * a->head_dim;
  const struct part parts[] = {
      {"input_layernorm.weight", a->hidden, 0, true},
      {"mlp.down_proj.weight", a->hidden, a->intermediate, true},
      {"mlp.gate_proj.weight", a->intermediate, a->hidden, true},
      {"mlp.up_proj.weight", a->intermediate, a->hidden, true},
      {"post_attention_layernorm.weight", a->hidden, 0, true},
      {"self_attn.k_norm.weight", a->head_dim, 0, a->qk_norm},
      {"self_attn.k_proj.bias", kv, 0, a->qkv_bias},
      {"self_attn.k_proj.weight", kv, a->hidden, true},
      {"self_attn.o_proj.weight", a->hidden, q, true},
      {"self_attn.q_norm.weight", a->head_dim, 0, a->qk_norm},
      {"self_attn.q_proj.bias", q, 0, a->qkv_bias},
      {"self_attn.q_proj.weight", q, a->hidden, true},
      {"self_attn.v_proj.bias", kv, 0, a->qkv_bias},
      {"self_attn.v_proj.weight", kv, a->hidden, true},
  };
  char prefix[48];
  snprintf(prefix, sizeof prefix, "model.layers.%u.", number);
  return add_parts(layout, prefix, "BF16", BF16_BYTES, parts, sizeof parts / sizeof parts[0]);
}

static SPROUT_MUST_CHECK enum sprout_status write_config(struct synth_layout *layout,
                                                         const struct architecture *a) {
  char text[1024];
  snprintf(
      text, sizeof text,
      "{\n  \"architectures\": [\"%s\"],\n  \"head_dim\": %u,\n  \"hidden_size\": %u,\n"
      "  \"intermediate_size\": %u,\n  \"model_type\": \"%s\",\n  \"num_attention_heads\": %u,\n"
      "  \"num_hidden_layers\": %u,\n  \"num_key_value_heads\": %u,\n  \"tie_word_embeddings\": "
      "%s,\n"
      "  \"torch_dtype\": \"%s\",\n  \"vocab_size\": %u\n}\n",
      a->class_name, a->head_dim, a->hidden, a->intermediate, a->model_type, a->heads, a->layers,
      a->kv_heads, a->tied_embeddings ? "true" : "false",
      strcmp(a->model_type, "bert") == 0 ? "float32" : "bfloat16", a->vocabulary);
  layout->config = strdup(text);
  return layout->config ? SPROUT_OK : SPROUT_NO_MEMORY;
}

static SPROUT_MUST_CHECK enum sprout_status add_decoder(struct synth_layout *layout,
                                                        const struct architecture *a) {
  const struct part first[] = {
      {"lm_head.weight", a->vocabulary, a->hidden, !a->tied_embeddings || a->saves_head},
      {"model.embed_tokens.weight", a->vocabulary, a->hidden, true}};
  const struct part last[] = {{"model.norm.weight", a->hidden, 0, true}};
  enum sprout_status status = add_parts(layout, "", "BF16", BF16_BYTES, first, 2);
  for (uint32_t i = 0; i < a->layers && status == SPROUT_OK; i++)
    status = add_decoder_layer(layout, a, i);
  if (status == SPROUT_OK) status = add_parts(layout, "", "BF16", BF16_BYTES, last, 1);
  return status == SPROUT_OK ? write_config(layout, a) : status;
}

/* all-MiniLM-L6-v2: a six-layer BERT encoder in F32. */
static SPROUT_MUST_CHECK enum sprout_status add_bert(struct synth_layout *layout) {
  const struct architecture a = {BERT_NAME, "BertModel", "bert", 384,  1536,  6,     12,
                                 12,        32,          30522,  true, false, false, false};
  const struct part ends[] = {{"embeddings.LayerNorm.bias", 384, 0, true},
                              {"embeddings.LayerNorm.weight", 384, 0, true},
                              {"embeddings.position_embeddings.weight", 512, 384, true},
                              {"embeddings.token_type_embeddings.weight", 2, 384, true},
                              {"embeddings.word_embeddings.weight", 30522, 384, true},
                              {"pooler.dense.bias", 384, 0, true},
                              {"pooler.dense.weight", 384, 384, true}};
  const struct part layer[] = {{"attention.output.LayerNorm.bias", 384, 0, true},
                               {"attention.output.LayerNorm.weight", 384, 0, true},
                               {"attention.output.dense.bias", 384, 0, true},
                               {"attention.output.dense.weight", 384, 384, true},
                               {"attention.self.key.bias", 384, 0, true},
                               {"attention.self.key.weight", 384, 384, true},
                               {"attention.self.query.bias", 384, 0, true},
                               {"attention.self.query.weight", 384, 384, true},
                               {"attention.self.value.bias", 384, 0, true},
                               {"attention.self.value.weight", 384, 384, true},
                               {"intermediate.dense.bias", 1536, 0, true},
                               {"intermediate.dense.weight", 1536, 384, true},
                               {"output.LayerNorm.bias", 384, 0, true},
                               {"output.LayerNorm.weight", 384, 0, true},
                               {"output.dense.bias", 384, 0, true},
                               {"output.dense.weight", 384, 1536, true}};
  enum sprout_status status = add_parts(layout, "", "F32", 4, ends, sizeof ends / sizeof ends[0]);
  if (status == SPROUT_OK) status = add(layout, "embeddings.position_ids", "I64", 8, 1, 512);
  for (uint32_t i = 0; i < a.layers && status == SPROUT_OK; i++) {
    char prefix[48];
    snprintf(prefix, sizeof prefix, "encoder.layer.%u.", i);
    status = add_parts(layout, prefix, "F32", 4, layer, sizeof layer / sizeof layer[0]);
  }
  return status == SPROUT_OK ? write_config(layout, &a) : status;
}

static uint64_t layer_bytes(const struct architecture *a) {
  uint64_t q = (uint64_t)a->heads * a->head_dim, kv = (uint64_t)a->kv_heads * a->head_dim;
  uint64_t elements = 2ull * a->hidden * q + 2ull * a->hidden * kv +
                      3ull * a->hidden * a->intermediate + 2ull * a->hidden;
  return elements * BF16_BYTES;
}

/* The largest architecture of which four layers fit; four fifths become layers, the vocabulary
 * fills the rest. */
static SPROUT_MUST_CHECK enum sprout_status add_sized(struct synth_layout *layout, uint64_t bytes) {
  struct architecture a = decoders[0];
  for (size_t i = 1; i < DECODER_COUNT; i++) {
    if (!decoders[i].qkv_bias && !decoders[i].qk_norm && layer_bytes(&decoders[i]) * 5 <= bytes)
      a = decoders[i];
  }
  uint64_t layers = bytes / 5 * 4 / layer_bytes(&a);
  if (layers > 1000000) return SPROUT_INVALID;
  a.layers = layers ? (uint32_t)layers : 1;
  uint64_t rest = bytes > a.layers * layer_bytes(&a) ? bytes - a.layers * layer_bytes(&a) : 0;
  uint64_t vocabulary = rest / (BF16_BYTES * (uint64_t)a.hidden);
  a.vocabulary = vocabulary > UINT32_MAX ? UINT32_MAX : vocabulary ? (uint32_t)vocabulary : 1;
  a.tied_embeddings = true;
  return add_decoder(layout, &a);
}

static SPROUT_MUST_CHECK enum sprout_status add_uniform(struct synth_layout *layout,
                                                        const char *text) {
  char *end;
  unsigned long count = strtoul(text, &end, 10);
  uint64_t bytes;
  if (end == text || *end != 'x' || count == 0 || count > 1000000) return SPROUT_INVALID;
  if (units_parse_size(end + 1, &bytes) != SPROUT_OK || bytes > (1ull << 40)) return SPROUT_INVALID;
  for (unsigned long i = 0; i < count; i++) {
    char name[SYNTH_NAME_BYTES];
    snprintf(name, sizeof name, "model.layers.%lu.experts.%lu.weight", i / 128, i % 128);
    enum sprout_status status = add(layout, name, "U8", 1, bytes, 0);
    if (status != SPROUT_OK) return status;
  }
  layout->config = strdup("{\n  \"architectures\": [\"UniformTensors\"]\n}\n");
  return layout->config ? SPROUT_OK : SPROUT_NO_MEMORY;
}

static SPROUT_MUST_CHECK enum sprout_status add_spec(struct synth_layout *layout,
                                                     const char *spec) {
  uint64_t bytes;
  if (strncmp(spec, "tensors:", 8) == 0) return add_uniform(layout, spec + 8);
  if (strncmp(spec, "size:", 5) == 0) {
    if (units_parse_size(spec + 5, &bytes) != SPROUT_OK || bytes == 0) return SPROUT_INVALID;
    return add_sized(layout, bytes);
  }
  if (strcmp(spec, BERT_NAME) == 0) return add_bert(layout);
  for (size_t i = 0; i < DECODER_COUNT; i++) {
    if (strcmp(spec, decoders[i].name) == 0) return add_decoder(layout, &decoders[i]);
  }
  return SPROUT_INVALID;
}

enum sprout_status synth_layout_create(const char *spec, struct synth_layout *layout_out,
                                       struct sprout_error *error) {
  struct synth_layout layout = {0};
  enum sprout_status status = add_spec(&layout, spec);
  if (status == SPROUT_OK) {
    *layout_out = layout;
    return SPROUT_OK;
  }
  synth_layout_destroy(&layout);
  if (status == SPROUT_NO_MEMORY)
    return sprout_error_set(error, status, 0, NULL, "no memory for the layout of %s", spec);
  char hint[256];
  snprintf(hint, sizeof hint, "Known: %s.", synth_names());
  return sprout_error_set(error, status, 0, hint, "'%s' names no architecture and no size", spec);
}

void synth_layout_destroy(struct synth_layout *layout) {
  free(layout->tensors);
  free(layout->config);
  memset(layout, 0, sizeof *layout);
}
