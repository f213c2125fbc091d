"""The questions of the study, to the byte: the trailing space of most of them is part of the prompt."""

COUNT_QUESTION = "How many dots are there in the image? Answer directly. Answer: "
REVERSED_QUESTION = "How many dots are there in the image? Write the units digit first, then the tens digit. Answer: "
WORDS_QUESTION = "How many dots are there in the image? Answer with one English word. Answer: "
STEPS_QUESTION = "How many dots are there in the image? Count the dots step by step, then finish with 'Answer: N'."
ECHO_QUESTION = "Repeat this number: {n}. Answer: "
NUMBER_QUESTION = "What number is written in the image? Answer directly. Answer: "
RELATION_QUESTION = "Is the black dot left of, right of, above or below the red dot? Answer with one word. Answer: "
