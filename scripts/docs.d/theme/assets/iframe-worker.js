// The search runs in a worker, and browsers start no workers for pages from file://. There, a hidden frame runs it. The
// theme would load such a script from unpkg.com.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.scope = frame.contentWindow
      // Otherwise Firefox puts a new document in the frame a moment later.
      const page = this.scope.document
      page.open()
      page.write("<!doctype html><body>")
      page.close()
      this.scope.postMessage = (data) => setTimeout(() => this.dispatchEvent(new MessageEvent("message", { data })))
      this.loaded = new Promise((resolve) => {
        const script = page.createElement("script")
        script.onload = resolve
        script.src = url
        page.body.append(script)
      })
    }
    postMessage(data) {
      this.loaded.then(() => this.scope.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
