/// Reads settings by key: command line first, then file, then default. Errors are added to `problems`, and the default
/// is used instead.
struct SettingsReader {
    /// The table of the file; nil without a file.
    let section: TOMLFile.Section?
    let options: CommandOptions
    let problems: Problems

    /// Reads the settings of a program.
    ///
    /// - Parameter orPipe: whether the file may be a pipe. Reading then waits for its writer.
    init(_ options: CommandOptions, _ problems: Problems, orPipe: Bool = true) {
        self.options = options
        self.problems = problems
        self.section = problems.value(nil) { () throws(SettingsError) in
            try options.configuration.map { path throws(SettingsError) in
                try TOMLFile(path: path, orPipe: orPipe).root
            }
        }
        problems.takesNeeds = self.isReadable
    }

    /// Reads a table without options.
    init(_ section: TOMLFile.Section?, _ problems: Problems) {
        self.section = section
        self.options = CommandOptions()
        self.problems = problems
    }

    /// Reads a command line without a file.
    init(options: CommandOptions, _ problems: Problems) {
        self.section = nil
        self.options = options
        self.problems = problems
    }

    func value<Value>(_ key: Key<Value>) -> Value {
        let found = self.problems.found.count
        if let value = self.given(key) { return value }
        // An invalid value does not count as missing.
        if let missing = key.missing, self.isReadable, self.problems.found.count == found {
            self.problems.add(self.place(of: key), missing)
        }
        return key.standard
    }

    private func given<Value>(_ key: Key<Value>) -> Value? {
        let name = key.description.name
        let inFile: Value? = self.problems.value(nil) { () throws(SettingsError) in
            guard let section = self.section else { return nil }
            return try key.form.file(section, name, self.problems)
        }
        guard self.isOption(key) else { return inFile }
        let option: Value? = self.problems.value(nil) { () throws(SettingsError) in
            try key.form.option(self.options[name], key.description.optionPlace, self.problems)
        }
        guard let option, let inFile else { return option ?? inFile }
        return key.form.joined(option, inFile)
    }

    /// False if there is a file and it is unreadable. Its keys then do not count as missing.
    var isReadable: Bool { self.section != nil || self.options.configuration == nil }

    /// Whether the command line has the option.
    func isOption(_ key: Key<some Any>) -> Bool { !self.options[key].isEmpty }

    func isGiven(_ key: Key<some Any>) -> Bool {
        self.isOption(key) || self.section?.has(key.description.name) ?? false
    }

    /// The place of the value for errors: the option, or `file:line` of the key or its table.
    func place(of key: Key<some Any>) -> String {
        guard !self.isOption(key), let section = self.section else { return key.description.optionPlace }
        return section.place(of: key.description.name)
    }

    func add(_ key: Key<some Any>, _ reason: String) { self.problems.add(self.place(of: key), reason) }

    func attempt(_ body: () throws(SettingsError) -> Void) { self.problems.attempt(body) }

    /// Reports every unknown key of the table.
    func finish(_ tables: (any KeyTable.Type)...) {
        guard let section = self.section else { return }
        let known = tables.dropFirst().reduce(into: tables.first?.names ?? []) { $0.formUnion($1.names) }
        for error in section.unknownKeys(beside: known) { self.problems.add(error) }
    }
}
