/// What an agent presents to log in, in its version of the protocol.
///
/// Each version has its own tokens. A token of one version is never accepted for the other, because version 1 does not
/// keep tokens secret.
package enum Credentials: Equatable, Sendable {
    case version2(Login)
    case version1(token: String)
}
