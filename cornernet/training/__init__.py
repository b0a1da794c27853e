"""Training a detector.

* ``loop``: ``train``, and the loop that it runs; ``step``: one optimiser step, which is also what is timed
* ``batches``, ``gradients``: what each of the processes that train together loads and computes
* ``replicas``: processes on a CPU that share every batch; ``exchange``: how they exchange numbers
* ``devices``: device, processes and loss scaler; ``signals``: Ctrl-C between iterations; ``errors``
* ``run_folder``, ``checkpoints``, ``metrics``: the files of a run; ``tensorboard``: its curves in TensorBoard
* ``timing``, ``memory``: time and memory of a training step, and the stages of testing
* ``report``: the page of a run; ``starter``: the model that ships with the package
"""
