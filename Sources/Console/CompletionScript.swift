import ArgumentParser

/// Corrects the completion scripts of the argument parser for the way in which these programs parse command lines.
///
/// The parser's scripts take `status` in `diglett status` for the program's argument, and do not offer the program's
/// options after a subcommand. In bash they ignore that readline splits words at colons. The corrections replace text
/// in the scripts. If a newer parser generates a different passage, it stays as it is, and tests fail.
struct CompletionScript {
    let program: String
    let subcommands: [String]
    /// Whether the program's options are also allowed after a subcommand. If not, a subcommand must be the first word,
    /// and any other word is the program's argument.
    let isInherited: Bool

    init(of configuration: CommandConfiguration) {
        var names: [String] = []
        var isInherited = true
        for subcommand in configuration.subcommands {
            let configuration = subcommand.configuration
            if let name = configuration.commandName { names.append(name) }
            // A subcommand with the program's name in its configuration is parsed on its own.
            if configuration._superCommandName != nil { isInherited = false }
        }
        self.program = configuration.commandName ?? ""
        self.subcommands = names + ["help"]
        self.isInherited = isInherited
    }

    func improved(_ script: String) -> String {
        if script.hasPrefix("#!/bin/bash") { return self.bash(script) }
        if script.hasPrefix("#compdef") { return self.zsh(script) }
        return self.fish(script)
    }

    private func bash(_ script: String) -> String {
        let words = "    local -a unparsed_words=(\"${COMP_WORDS[@]:1:${COMP_CWORD}}\")\n"
        let joinedWords = """
                # HOST:PORT and --option=VALUE are several words here.
                local -a unparsed_words=()
                local -i word_number
                for ((word_number = 1; word_number <= COMP_CWORD; word_number++)); do
                    if [[ word_number -gt 1 && ("${COMP_WORDS[word_number]}" = [:=]* || "${COMP_WORDS[word_number - 1]}" = *[:=]) ]]; then
                        unparsed_words[${#unparsed_words[@]} - 1]+="${COMP_WORDS[word_number]}"
                    else
                        unparsed_words+=("${COMP_WORDS[word_number]}")
                    fi
                done

            """
        var result = script.replacing(words, with: joinedWords)
        let options = "\"${repeating_options[@]}\" \"${non_repeating_options[@]}\""
        let offer = "__\(self.program)_offer_flags_options "
        // The first call offers the program's own options.
        guard let call = result.firstRange(of: "    \(offer)") else { return result }
        let count = result[call.upperBound...].prefix { $0.isNumber }
        let names = self.subcommands.joined(separator: "|")
        let byFirstWord = """
                case "${unparsed_words[0]}" in
                \(names))
                    \(offer)0
                    ;;
                *)
                    \(offer)\(count)
                    ;;
                esac
            """
        let keepingOptions = """
                local -ar program_options=(\(options))
                \(offer)\(count)
            """
        result.replaceSubrange(
            call.lowerBound..<count.endIndex, with: self.isInherited ? keepingOptions : byFirstWord)
        guard self.isInherited else { return result }
        return result.replacing(
            "for option in \(options);", with: "for option in \(options) \"${program_options[@]}\";")
    }

    private func zsh(_ script: String) -> String {
        let call = "    _arguments -w -s -S : \"${arg_specs[@]}\" && ret=0\n"
        // The first call offers the program's own options.
        guard let first = script.firstRange(of: call) else { return script }
        let head = script[..<first.lowerBound]
        let tail = script[first.upperBound...]
        if self.isInherited {
            // With '!' an option is accepted but not offered. The last three, --version, -h and --help, exist for every
            // subcommand; the entries after them are subcommands.
            return head + call + "    local -ar program_specs=(\"${(@)arg_specs[1,-6]/#/!}\")\n"
                + tail.replacing(call, with: call.replacing("\" &&", with: "\" \"${program_specs[@]}\" &&"))
        }
        let lines = head.split(separator: "\n", omittingEmptySubsequences: false).filter { !$0.hasPrefix("        ':") }
        let known = "            \"_\(self.program)_${words[1]}\" && ret=0\n            ;;\n"
        let other = """
                    *)
                        # Behind the program's argument, which is not a subcommand.
                        _arguments -w -s -S : "${(@)arg_specs[1,-3]}" && ret=0
                        ;;

            """
        return lines.joined(separator: "\n") + call + tail.replacing(known, with: known + other, maxReplacements: 1)
    }

    private func fish(_ script: String) -> String {
        let parse = "__\(self.program)_parse_subcommand "
        var lines = script.split(separator: "\n", omittingEmptySubsequences: false).map(String.init)
        // Calls only: in a definition 'function' precedes the name. The first call is for the program itself.
        let calls = lines.indices.filter { lines[$0].drop { $0 == " " }.hasPrefix(parse) }
        guard let first = calls.first else { return script }
        let parts = lines[first].split(separator: " ")
        if self.isInherited {
            let specs = parts.dropFirst(2).filter { $0 != "'version'" && $0 != "'h/help'" }
            for index in calls.dropFirst() { lines[index] += " " + specs.joined(separator: " ") }
        } else {
            let names = self.subcommands.joined(separator: " ")
            let count = "(contains -- \"$unparsed_tokens[2]\" \(names); and echo 0; or echo \(parts[1]))"
            lines[first].replace("\(parse)\(parts[1]) ", with: "\(parse)\(count) ", maxReplacements: 1)
        }
        return lines.joined(separator: "\n")
    }
}
