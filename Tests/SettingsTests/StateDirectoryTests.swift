import Foundation
import Glibc
import Settings
import Testing

@Suite("State directories owned or writable by others")
struct StateDirectoryTests {
    private func chmod(_ path: String, _ mode: Int) throws {
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
    }

    @Test("a directory that others can write to is refused", arguments: [0o777, 0o775, 0o757, 0o720, 0o702])
    func writable(_ mode: Int) throws {
        try withDirectory { directory in
            try chmod(directory, mode)
            let text = message { try StateDirectory(path: directory) }
            #expect(text.hasPrefix("\(directory): other users can write to it: run chmod go-w \(directory)"))
            #expect(message { try StateDirectory(path: directory, forOther: true) } == text)
            // A new directory below it belongs to the program.
            #expect(message { try StateDirectory(path: "\(directory)/mine") } == "")
        }
    }

    @Test("modes of service managers and /tmp are accepted", arguments: [0o700, 0o750, 0o755, 0o711, 0o1777, 0o1775])
    func taken(_ mode: Int) throws {
        try withDirectory { directory in
            try chmod(directory, mode)
            #expect(message { try StateDirectory(path: directory) } == "")
        }
    }

    @Test("a link is checked at its target, as for /var/lib/NAME with DynamicUser")
    func link() throws {
        try withDirectory { directory in
            for (name, mode) in [("good", 0o700), ("bad", 0o777)] {
                try FileManager.default.createDirectory(
                    atPath: "\(directory)/\(name)", withIntermediateDirectories: false)
                try chmod("\(directory)/\(name)", mode)
                try FileManager.default.createSymbolicLink(
                    atPath: "\(directory)/to-\(name)", withDestinationPath: "\(directory)/\(name)")
            }
            #expect(message { try StateDirectory(path: "\(directory)/to-good") } == "")
            #expect(message { try StateDirectory(path: "\(directory)/to-bad") }.contains("chmod go-w"))
        }
    }

    @Test("another user's directory is refused, except when root acts for that user", .enabled(if: geteuid() == 0))
    func owner() throws {
        try withDirectory { directory in
            #expect(chown(directory, 65_534, 65_534) == 0)
            let text = message { try StateDirectory(path: directory) }
            #expect(text.contains("belongs to another user (uid 65534)") && text.contains("run chown 0 \(directory)"))
            #expect(message { try StateDirectory(path: directory, forOther: true) } == "")
        }
    }

    @Test("a file that another user may have planted is not read", .enabled(if: geteuid() == 0))
    func planted() throws {
        try withDirectory { directory in
            let (own, planted) = ("\(directory)/own", "\(directory)/planted")
            for path in [own, planted] { try write("x", path) }
            #expect(chown(planted, 65_534, 65_534) == 0)
            let state = try StateDirectory(path: directory)
            // Only root can have put it there.
            #expect(try state.readOrMake("planted", atMost: 10) { [] } == Array("x".utf8))
            for mode in [0o1777, 0o1775] {
                try chmod(directory, mode)
                #expect(try FileAccess.read(own, atMost: 10) == Array("x".utf8))
                let text = message { try state.readOrMake("planted", atMost: 10) { [] } }
                #expect(
                    text.hasPrefix("\(planted): belongs to another user (uid 65534)")
                        && text.contains("remove the file"))
                #expect(message { try KnownGateways(path: planted) } == text)
                #expect(message { try AgentsFile(path: planted) } == text)
            }
        }
    }
}
