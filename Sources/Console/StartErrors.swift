internal import Journal
package import Logging
package import Settings

/// How a daemon reports errors that keep it from starting.
package enum StartErrors {
    /// Writes mistakes on the command line for the person who typed it, and all other errors to the log. A log that
    /// programs read gets both.
    package static func report(_ errors: SettingsErrors, _ logger: Logger) {
        let isForPerson = errors.areOfCommandLine && logger.isForPeople
        for error in errors.all {
            if isForPerson {
                Complaint.write("\(error)")
            } else {
                logger.error("\(Secrets.hidden(in: "\(error)"))")
            }
        }
    }
}
