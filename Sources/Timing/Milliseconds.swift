/// A time or a duration in milliseconds of a monotonic clock. The driver of a state machine supplies the time.
package typealias Milliseconds = UInt64
