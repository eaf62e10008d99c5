import Explain
import Gateway
import Testing

@Suite("Explanations of the gateway's exit codes")
struct GatewayExplainTests {
    @Test("exist for each exit code including success, and for no others")
    func complete() {
        let numbers = Explanations.all.filter { $0.kind == .gatewayExit }.map(\.number)
        #expect(numbers == [0] + GatewayError.Kind.allCases.map { Int($0.rawValue) }.sorted())
    }
}
