#include "ctoml.h"

#if !__has_include(<toml++/toml.h>)
#error "toml++ is missing: apt-get install libtomlplusplus-dev"
#endif
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
/* Some assertions of toml++ 3.3.0 fail on malformed documents, which it rejects anyway. With NDEBUG they would become
   assumptions of the optimizer, and a failed assumption is undefined behaviour. */
#define TOML_ASSERT(expr) static_cast<void>(0)
#include <toml++/toml.h>

#include <algorithm>
#include <cstring>
#include <string_view>

namespace {

ctoml_text text(std::string_view s) { return {s.data(), s.size()}; }

void hand_over(const toml::node &node, std::string_view key, uint32_t line, const ctoml_reader &reader) {
    ctoml_value value = {};
    value.key = text(key);
    value.line = line;
    switch (node.type()) {
    case toml::node_type::table: value.kind = ctoml_table; break;
    case toml::node_type::array: value.kind = ctoml_array; break;
    case toml::node_type::string:
        value.kind = ctoml_string;
        value.string = text(node.as_string()->get());
        break;
    case toml::node_type::integer:
        value.kind = ctoml_integer;
        value.integer = node.as_integer()->get();
        break;
    case toml::node_type::floating_point:
        value.kind = ctoml_float;
        value.number = node.as_floating_point()->get();
        break;
    case toml::node_type::boolean:
        value.kind = ctoml_boolean;
        value.boolean = node.as_boolean()->get();
        break;
    default: value.kind = ctoml_other; break;
    }
    reader.value(reader.context, &value);
    if (const auto *table = node.as_table()) {
        for (const auto &[name, member] : *table)
            hand_over(member, name.str(), name.source().begin.line, reader);
        reader.close(reader.context);
    } else if (const auto *array = node.as_array()) {
        for (const auto &member : *array)
            hand_over(member, {}, member.source().begin.line, reader);
        reader.close(reader.context);
    }
}

} // namespace

bool ctoml_read(ctoml_text document, ctoml_reader reader, ctoml_error *error) {
    const auto result = toml::parse(std::string_view(document.bytes, document.count));
    if (!result) {
        const std::string_view description = result.error().description();
        const size_t count = std::min(description.size(), sizeof error->text - 1);
        std::memcpy(error->text, description.data(), count);
        error->text[count] = 0;
        error->line = result.error().source().begin.line;
        return false;
    }
    hand_over(result.table(), {}, 1, reader);
    return true;
}
