// Reads a message of the broker with the CloudEvents SDK and prints the event. The
// message comes from standard input, as {"headers": {...}, "body": "..."}.
import { HTTP } from "cloudevents";

let input = "";
for await (const chunk of process.stdin) {
  input += chunk;
}
// CloudEvents in binary mode look the same in NATS as in HTTP.
const event = HTTP.toEvent(JSON.parse(input));
event.validate();
console.log(JSON.stringify(event));
