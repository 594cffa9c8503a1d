"""This device's agent, for the scripts that take a meeting somewhere else."""
import json
import subprocess


class Agent:
    """The command line of the agent that is in the meeting, for a script that needs a role there."""

    def __init__(self, script, role, meeting=""):
        self.script, self.role = script, role
        self.options = ["--meeting", meeting] if meeting else []

    def run(self, *arguments):
        return subprocess.run(["meeting-agent", *arguments], capture_output=True, text=True)

    def me(self):
        """This device's entry in the roster; raises what to do if it is not there with the role."""
        answer = self.run("status", "--json", *self.options)
        if answer.returncode:
            raise RuntimeError(answer.stderr.strip())
        status = json.loads(answer.stdout)
        me = next((person for person in status["people"] if person["me"]), None)
        if status["phase"] != "live" or me is None:
            raise RuntimeError(f"{self.script}: not in a meeting yet: {status['detail'] or status['phase']}")
        if me["role"] != self.role:
            raise RuntimeError(f"{self.script}: the others do not see a {self.role} in you: `meeting-agent leave`, "
                               f"then `meeting-agent join --role {self.role}`")
        return me
