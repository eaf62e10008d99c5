import Foundation
import Glibc
import Testing

@testable import Settings

@Suite("Files that another user may have planted", .timeLimit(.minutes(1)))
struct FileAccessTests {
    @Test("a pipe in place of the temporary file is replaced, and a link there is not followed")
    func replace() throws {
        try withDirectory { directory in
            let path = "\(directory)/x"
            #expect(mkfifo("\(path).new", 0o666) == 0)
            try FileAccess.replace(path, with: [1], durable: false)
            #expect(try FileAccess.read(path, atMost: 1) == [1])
            try write("precious", "\(directory)/victim")
            #expect(symlink("\(directory)/victim", "\(path).new") == 0)
            try FileAccess.replace(path, with: [2], durable: false)
            #expect(try FileAccess.read(path, atMost: 1) == [2])
            #expect(try String(contentsOfFile: "\(directory)/victim", encoding: .utf8) == "precious")
        }
    }

    @Test("a pipe or directory in place of a file is refused without waiting")
    func read() throws {
        try withDirectory { directory in
            let path = "\(directory)/pipe"
            #expect(mkfifo(path, 0o600) == 0)
            #expect(message { try FileAccess.read(path, atMost: 1) }.contains("not a regular file"))
            #expect(message { try AgentsFile(path: path) }.contains("not a regular file"))
            #expect(message { try FileAccess.read(directory, atMost: 1) }.contains("is a directory"))
            #expect(message { try FileAccess.read("/dev/null", atMost: 1) }.contains("not a regular file"))
            let nothing = try FileAccess.read("/dev/null", atMost: 1, orPipe: true)
            #expect(nothing.isEmpty)
        }
    }

    @Test("only a file that does not exist is missing; an inaccessible file is not")
    func missing() throws {
        try withDirectory { directory in
            let path = "\(directory)/agents.toml"
            #expect(!FileAccess.exists(path) && FileStamp(path: path) == nil)
            #expect(!FileAccess.exists("\(directory)/none/agents.toml"))
            #expect(symlink("\(directory)/nowhere", path) == 0)
            let dangling = try #require(FileStamp(path: path))
            #expect(FileAccess.exists(path) && dangling == FileStamp(path: path) && !dangling.isEmpty)
            #expect(message { try AgentsFile(path: path) }.hasPrefix("\(path): cannot be read: no such file"))
            try write("", "\(directory)/nowhere")
            #expect(FileStamp(path: path) != dangling)
            // ENOTDIR, and ELOOP.
            #expect(FileAccess.exists("\(directory)/nowhere/agents.toml"))
            #expect(FileStamp(path: "\(directory)/nowhere/agents.toml") != nil)
            #expect(symlink("loop", "\(directory)/loop") == 0 && FileAccess.exists("\(directory)/loop/x"))
        }
    }

    @Test("a path has one resolved form, whether or not its parts exist")
    func resolved() throws {
        try withDirectory { given in
            let directory = FileAccess.resolved(given)
            #expect(symlink(directory, "\(directory)/link") == 0)
            for (path, plain) in [
                ("\(directory)/link/../x", FileAccess.path(in: FileAccess.resolved("\(directory)/.."), "x")),
                ("\(directory)/link/x/y", "\(directory)/x/y"), ("\(directory)//./x/", "\(directory)/x"),
                ("\(directory)/x/../y", "\(directory)/y"), ("/none/../x", "/x"), ("/none", "/none"), ("/", "/"),
                ("/none/..", "/"), ("/../none/a", "/none/a"),
            ] { #expect(FileAccess.resolved(path) == plain) }
            #expect(FileAccess.resolved("none") == FileAccess.path(in: FileAccess.resolved("."), "none"))
        }
    }

    @Test("an agent's token may come through a pipe, as in process substitution")
    func pipe() throws {
        var ends: [CInt] = [0, 0]
        #expect(Glibc.pipe(&ends) == 0)
        defer { close(ends[0]) }
        #expect(Glibc.write(ends[1], "secret\n", 7) == 7)
        close(ends[1])
        var options = CommandOptions()
        options["gateway"] = ["gw"]
        options["token-file"] = ["/dev/fd/\(ends[0])"]
        options["expose"] = ["a=1"]
        #expect(try AgentSettings(options).token.text == "secret")
    }

    @Test("a lock is neither created through a link nor taken on a pipe")
    func lock() throws {
        try withDirectory { directory in
            let path = "\(directory)/lock"
            #expect(symlink("\(directory)/victim", path) == 0)
            #expect(message { try FileLock(path: path, of: directory) }.contains("cannot be written"))
            #expect(!FileAccess.exists("\(directory)/victim"))
            unlink(path)
            #expect(mkfifo(path, 0o600) == 0)
            #expect(message { try FileLock(tryPath: path) }.contains("not a regular file"))
            unlink(path)
            let lock = try FileLock(path: path, of: directory)
            #expect(try FileLock(tryPath: path) == nil)
            withExtendedLifetime(lock) {}
        }
    }

    @Test("a lock created by root belongs to the owner of the file", .enabled(if: geteuid() == 0))
    func lockOwner() throws {
        try withDirectory { directory in
            #expect(chown(directory, 12_345, 12_346) == 0)
            var status = stat()
            do { _ = try AgentsFileEditor(path: "\(directory)/agents.toml") }
            #expect(stat("\(directory)/agents.toml.lock", &status) == 0)
            #expect(status.st_uid == 12_345 && status.st_gid == 12_346)
            try write("", "\(directory)/other.toml")
            #expect(chown("\(directory)/other.toml", 54_321, 54_321) == 0)
            do { _ = try AgentsFileEditor(path: "\(directory)/other.toml") }
            #expect(stat("\(directory)/other.toml.lock", &status) == 0 && status.st_uid == 54_321)
            try write("", "\(directory)/lock")
            do { _ = try FileLock(tryPath: "\(directory)/lock") }
            #expect(stat("\(directory)/lock", &status) == 0 && status.st_uid == 12_345)
        }
    }
}
