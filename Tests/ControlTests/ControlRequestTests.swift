import Control
import Testing

@Suite("Control requests")
struct ControlRequestTests {
    @Test(
        "a line that is not a request is refused with a reason",
        arguments: [
            ("", "the request is not valid JSON of this protocol"),
            ("{}", "the request is not valid JSON of this protocol"),
            (#"{"version":1}"#, "the request is not valid JSON of this protocol"),
            (#"{"version":1,"command":"fly"}"#, "the request is not valid JSON of this protocol"),
            (#"{"version":2,"command":"status"}"#, "unknown version 2 of the control protocol"),
            (#"{"version":1,"command":"status","dryrun":true}"#, "unknown field in the request: 'dryrun'"),
            (#"{"version":1,"command":"status","a\nb":1}"#, #"unknown field in the request: 'a\u{A}b'"#),
            (#"{"version":1,"command":"status"} x"#, "the request is not valid JSON of this protocol"),
        ])
    func faults(_ line: String, _ reason: String) {
        guard case .failure(let fault) = ControlRequest.parse(Array(line.utf8)) else {
            Issue.record("accepted: \(line)")
            return
        }
        #expect(fault.description == reason)
    }

    @Test("a request is parsed with all its fields")
    func fields() throws {
        let line = #"{"version":1,"command":"ban","target":"10.0.0.0/8","seconds":60,"watch":false,"dry-run":true}"#
        let request = try ControlRequest.parse(Array(line.utf8)).get()
        #expect(request.command == .ban)
        #expect(request.target == "10.0.0.0/8")
        #expect(request.seconds == 60)
        #expect(request.watch == false)
        #expect(request.dryRun == true)
    }
}
