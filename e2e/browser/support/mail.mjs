// A small SMTP server that keeps the texts of the mails it gets.
import { createServer } from "node:net";
import { until } from "./allocator.mjs";

export class MailServer {
  static async start() {
    const server = new MailServer();
    server.mails = [];
    server.listener = createServer((socket) => server.serve(socket)).listen(0, "127.0.0.1");
    await new Promise((resolve) => server.listener.once("listening", resolve));
    server.url = `smtp://127.0.0.1:${server.listener.address().port}`;
    return server;
  }

  serve(socket) {
    let [input, text] = ["", null];
    const reply = (line) => socket.write(`${line}\r\n`);
    socket.setEncoding("utf8");
    socket.on("error", () => {});
    socket.on("data", (chunk) => {
      input += chunk;
      const lines = input.split("\r\n");
      input = lines.pop();
      for (const line of lines) {
        if (text === null) {
          if (/^DATA/i.test(line)) text = [];
          reply(/^DATA/i.test(line) ? "354 go on" : /^QUIT/i.test(line) ? "221 bye" : "250 ok");
        } else if (line === ".") {
          this.mails.push(text.join("\n"));
          text = null;
          reply("250 taken");
        } else text.push(line);
      }
    });
    reply("220 test");
  }

  /** The code of the mail with this number, counted from 1: its only line of six digits. */
  async code(number) {
    await until(`mail ${number}`, async () => this.mails.length >= number, 60_000);
    return /^\d{6}$/m.exec(this.mails[number - 1])[0];
  }

  stop() {
    this.listener.close();
  }
}
